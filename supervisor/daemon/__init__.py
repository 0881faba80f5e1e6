"""The daemon: one process that takes runs over HTTP on a Unix socket and sees them through.

Everything here runs on one event loop; what blocks (opening a caller's paths, compiling, fsync) is
done by helper processes and threads.  Nothing outside imports it but the command that starts it.
"""
