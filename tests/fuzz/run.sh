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

"$python" "$here/seeds.py" "$folder/corpus-fuzz_spec"
for target in "${targets[@]}"; do
  echo "== $target, $each s"
  defines=()
  # Time and waiting are the target's own there (see its header): real ones would hold the fuzzer.
  [ "$target" = fuzz_wasi ] && defines=(-Dppoll=fuzz_ppoll -Dclock_gettime=fuzz_clock_gettime)
  "$clang" -std=gnu11 -D_GNU_SOURCE "${defines[@]}" -g -O1 -Wall -Wextra -Werror \
    -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=undefined \
    -I"$core" -I"$here" -I"$here/../core" \
    "$here/$target.c" "$core"/base/*.c "$core"/spec/*.c "$core"/wasi/*.c "$core"/network/*.c -o "$folder/$target"
  mkdir -p "$folder/corpus-$target" "$folder/room"
  # A room of its own: a target may make files.  -verbosity=0 leaves findings and the last line.
  (cd "$folder/room" &&
    "../$target" -max_total_time="$each" -max_len=65536 -timeout=25 -rss_limit_mb=2048 \
      -artifact_prefix="$folder/$target-" -verbosity=0 -print_funcs=0 -print_final_stats=1 \
      "$folder/corpus-$target" 2>&1 | sed "/# Uses: /d")
done
