"""wasisup: runs WebAssembly that nobody has to trust, behind WASI and behind Linux."""

__version__ = "0.1.0"
