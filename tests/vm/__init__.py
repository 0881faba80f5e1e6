"""The installed command on Debian 12's own kernel, below systemd, with real control groups."""
