"""`wasisup --version`."""


def version_line() -> str:
    """`wasisup 0.1.0 (wasmtime 50.0.1, Python 3.11.7)`."""
    import platform

    beneath = f"wasmtime {engine() or 'missing'}, Python {platform.python_version()}"
    return f"wasisup {wasisup()} ({beneath})"


def wasisup() -> str:
    """This package's version, or "unknown" when it runs from a tree that is not installed."""
    return _of("wasisup") or "unknown"


def engine() -> "str | None":
    """The release of the engine's package, None when it is not installed."""
    return _of("wasmtime")


def _of(distribution: str) -> "str | None":
    from importlib import metadata

    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None
