"""Prints where the engine wheel lies and its release, as a CMake list."""

from importlib.metadata import distribution
from pathlib import Path

wheel = distribution("wasmtime")
print(f"{Path(str(wheel.locate_file('wasmtime')))};{wheel.version}")
