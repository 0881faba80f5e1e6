"""Benchmarks: wasisup beside the wasmtime CLI, in one run.  `python tests/bench/run.py`."""
