"""`wasisup daemon`: the one door from the command line to the daemon's side."""


def daemon(socket: "str | None", config: "str | None", check: bool) -> int:
    """Serves until it is told to stop, or only checks the configuration; the exit status."""
    from ..daemon import app

    return app.main(socket=socket, config=config, check=check)
