#!/bin/bash
# Builds every fuzz target beside this file and runs them one after the other.
#
#   FUZZ_SECONDS=60 tests/fuzz/run.sh [TARGET...]
#
# The seconds are shared out evenly.  A finding ends the script with its status and leaves the input
# in FUZZ_FOLDER (default: a temporary directory that is removed when there is no finding).
set -euo pipefail

here=$(cd "$(dirname "$0")" && pwd)
core=$here/../../runtime/core
seconds=${FUZZ_SECONDS:-60}
clang=${CLANG:-clang}
python=${PYTHON:-python3}

targets=("$@")
if [ ${#targets[@]} -eq 0 ]; then
  for source in "$here"/fuzz_*.c; do
    targets+=("$(basename "$source" .c)")
  done
fi
each=$((seconds / ${#targets[@]}))
[ "$each" -ge 1 ] || each=1

folder=${FUZZ_FOLDER:-}
if [ -z "$folder" ]; then
  folder=$(mktemp -d)
  trap 'status=$?; [ $status -ne 0 ] && echo "left for you: $folder" >&2 || rm -rf "$folder"' EXIT
fi
mkdir -p "$folder"

# The engine's library and its header, as the build of the core has them.
prepare_engine() {
  WASMTIME_LIBRARY=$("$python" -c "from wasisup.runtime.engine import find_library as f; print(f())")
  export WASMTIME_LIBRARY
  local release
  release=$("$python" -c "from wasisup.runtime.engine import ENGINE_RELEASE as r; print(r)")
  "$python" "$core/engine/generate_header.py" "$(dirname "$(dirname "$WASMTIME_LIBRARY")")" \
    "$release" "$folder/wasmtime.gen.h"
}

"$python" "$here/seeds.py" "$folder/corpus-fuzz_spec"
for target in "${targets[@]}"; do
  echo "== $target, $each s"
  defines=()
  # Time and waiting are the target's own there (see its header): real ones would hold the fuzzer.
  [ "$target" = fuzz_wasi ] && defines=(-Dppoll=fuzz_ppoll -Dclock_gettime=fuzz_clock_gettime)
  sources=("$core"/{base,spec,wasi,network}/*.c)
  if grep -q "needs: engine" "$here/$target.c"; then
    prepare_engine
    sources=("$core"/base/*.c "$core"/engine/{library,wave_lex,wave_parse,wave_print,wave_type}.c)
  fi
  "$clang" -std=gnu11 -D_GNU_SOURCE "${defines[@]}" -g -O1 -Wall -Wextra -Werror \
    -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=undefined \
    -I"$core" -I"$here" -I"$here/../core" -I"$folder" \
    "$here/$target.c" "${sources[@]}" -ldl -lm -o "$folder/$target"
  mkdir -p "$folder/corpus-$target" "$folder/room"
  # A room of its own: a target may make files.  -verbosity=0 leaves findings and the last line.
  (cd "$folder/room" &&
    "../$target" -max_total_time="$each" -max_len=65536 -timeout=25 -rss_limit_mb=2048 \
      -artifact_prefix="$folder/$target-" -verbosity=0 -print_funcs=0 -print_final_stats=1 \
      "$folder/corpus-$target" 2>&1 | sed "/# Uses: /d")
done
