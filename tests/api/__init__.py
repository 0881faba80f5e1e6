"""The daemon's API, over its socket: the same tests with a fake core and with the real one."""
