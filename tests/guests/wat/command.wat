;; A command of WASI 0.2 that does what the first letter of its first argument says; see `run` below.
(component
  (import "wasi:io/error@0.2.0" (instance $io-error (export "error" (type (sub resource)))))
  (alias export $io-error "error" (type $error))
  (import "wasi:io/poll@0.2.0" (instance $io-poll
    (export "pollable" (type $p (sub resource)))
    (export "[method]pollable.block" (func (param "self" (borrow $p))))))
  (alias export $io-poll "pollable" (type $pollable))
  (import "wasi:io/streams@0.2.0" (instance $io-streams
    (export "input-stream" (type $in (sub resource)))
    (export "output-stream" (type $out (sub resource)))
    (alias outer 1 $error (type $outer-error))
    (export "error" (type $e (eq $outer-error)))
    (type $failure (variant (case "last-operation-failed" (own $e)) (case "closed")))
    (export "stream-error" (type $stream-error (eq $failure)))
    (export "[method]input-stream.blocking-read" (func (param "self" (borrow $in)) (param "len" u64)
      (result (result (list u8) (error $stream-error)))))
    (export "[method]output-stream.blocking-write-and-flush" (func (param "self" (borrow $out))
      (param "contents" (list u8)) (result (result (error $stream-error)))))))
  (alias export $io-streams "input-stream" (type $input))
  (alias export $io-streams "output-stream" (type $output))
  (import "wasi:cli/stdin@0.2.0" (instance $cli-stdin
    (alias outer 1 $input (type $i)) (export "input-stream" (type $is (eq $i)))
    (export "get-stdin" (func (result (own $is))))))
  (import "wasi:cli/stdout@0.2.0" (instance $cli-stdout
    (alias outer 1 $output (type $o)) (export "output-stream" (type $os (eq $o)))
    (export "get-stdout" (func (result (own $os))))))
  (import "wasi:cli/stderr@0.2.0" (instance $cli-stderr
    (alias outer 1 $output (type $o)) (export "output-stream" (type $os (eq $o)))
    (export "get-stderr" (func (result (own $os))))))
  (import "wasi:cli/environment@0.2.0" (instance $cli-environment
    (export "get-environment" (func (result (list (tuple string string)))))
    (export "get-arguments" (func (result (list string))))))
  (import "wasi:cli/exit@0.2.0" (instance $cli-exit
    (export "exit" (func (param "status" (result))))
    (export "exit-with-code" (func (param "status-code" u8)))))
  (import "wasi:clocks/monotonic-clock@0.2.0" (instance $clocks
    (alias outer 1 $pollable (type $p)) (export "pollable" (type $pa (eq $p)))
    (export "subscribe-duration" (func (param "when" u64) (result (own $pa))))))
  (import "wasi:filesystem/types@0.2.0" (instance $files
    (export "descriptor" (type $d (sub resource)))
    (type $code' (enum "access" "would-block" "already" "bad-descriptor" "busy" "deadlock" "quota"
      "exist" "file-too-large" "illegal-byte-sequence" "in-progress" "interrupted" "invalid" "io"
      "is-directory" "loop" "too-many-links" "message-size" "name-too-long" "no-device" "no-entry"
      "no-lock" "insufficient-memory" "insufficient-space" "not-directory" "not-empty"
      "not-recoverable" "unsupported" "no-tty" "no-such-device" "overflow" "not-permitted" "pipe"
      "read-only" "invalid-seek" "text-file-busy" "cross-device"))
    (export "error-code" (type $code (eq $code')))
    (type $path-flags' (flags "symlink-follow"))
    (export "path-flags" (type $path-flags (eq $path-flags')))
    (type $open-flags' (flags "create" "directory" "exclusive" "truncate"))
    (export "open-flags" (type $open-flags (eq $open-flags')))
    (type $descriptor-flags' (flags "read" "write" "file-integrity-sync" "data-integrity-sync"
      "requested-write-sync" "mutate-directory"))
    (export "descriptor-flags" (type $descriptor-flags (eq $descriptor-flags')))
    (export "[method]descriptor.write" (func (param "self" (borrow $d)) (param "buffer" (list u8))
      (param "offset" u64) (result (result u64 (error $code)))))
    (export "[method]descriptor.read" (func (param "self" (borrow $d)) (param "length" u64)
      (param "offset" u64) (result (result (tuple (list u8) bool) (error $code)))))
    (export "[method]descriptor.open-at" (func (param "self" (borrow $d))
      (param "path-flags" $path-flags) (param "path" string) (param "open-flags" $open-flags)
      (param "flags" $descriptor-flags) (result (result (own $d) (error $code)))))))
  (alias export $files "descriptor" (type $descriptor))
  (import "wasi:filesystem/preopens@0.2.0" (instance $preopens
    (alias outer 1 $descriptor (type $d)) (export "descriptor" (type $pd (eq $d)))
    (export "get-directories" (func (result (list (tuple (own $pd) string)))))))

  (core module $memory-module
    (memory (export "memory") 1)
    (global $next (mut i32) (i32.const 8192))
    (func (export "realloc") (param i32 i32 i32 i32) (result i32)
      (local $at i32)
      (local.set $at (i32.and (i32.add (global.get $next) (i32.const 7)) (i32.const -8)))
      (global.set $next (i32.add (local.get $at) (local.get 3)))
      (if (i32.gt_u (global.get $next) (i32.shl (memory.size) (i32.const 16)))
        (then (drop (memory.grow (i32.const 1)))))
      (local.get $at)))
  (core instance $lib (instantiate $memory-module))
  (alias core export $lib "memory" (core memory $mem))
  (alias core export $lib "realloc" (core func $realloc))

  (alias export $io-poll "[method]pollable.block" (func $f-block))
  (alias export $io-streams "[method]input-stream.blocking-read" (func $f-read))
  (alias export $io-streams "[method]output-stream.blocking-write-and-flush" (func $f-write))
  (alias export $cli-stdin "get-stdin" (func $f-stdin))
  (alias export $cli-stdout "get-stdout" (func $f-stdout))
  (alias export $cli-stderr "get-stderr" (func $f-stderr))
  (alias export $cli-environment "get-environment" (func $f-environment))
  (alias export $cli-environment "get-arguments" (func $f-arguments))
  (alias export $cli-exit "exit" (func $f-exit))
  (alias export $cli-exit "exit-with-code" (func $f-exit-code))
  (alias export $clocks "subscribe-duration" (func $f-after))
  (alias export $preopens "get-directories" (func $f-directories))
  (alias export $files "[method]descriptor.open-at" (func $f-open))
  (alias export $files "[method]descriptor.write" (func $f-file-write))
  (alias export $files "[method]descriptor.read" (func $f-file-read))
  (core func $block (canon lower (func $f-block)))
  (core func $read (canon lower (func $f-read) (memory $mem) (realloc $realloc)))
  (core func $write (canon lower (func $f-write) (memory $mem)))
  (core func $stdin (canon lower (func $f-stdin)))
  (core func $stdout (canon lower (func $f-stdout)))
  (core func $stderr (canon lower (func $f-stderr)))
  (core func $environment (canon lower (func $f-environment) (memory $mem) (realloc $realloc)))
  (core func $arguments (canon lower (func $f-arguments) (memory $mem) (realloc $realloc)))
  (core func $exit (canon lower (func $f-exit)))
  (core func $exit-code (canon lower (func $f-exit-code)))
  (core func $after (canon lower (func $f-after)))
  (core func $directories (canon lower (func $f-directories) (memory $mem) (realloc $realloc)))
  (core func $open (canon lower (func $f-open) (memory $mem)))
  (core func $file-write (canon lower (func $f-file-write) (memory $mem)))
  (core func $file-read (canon lower (func $f-file-read) (memory $mem) (realloc $realloc)))

  (core module $main
    (import "w" "block" (func $block (param i32)))
    (import "w" "read" (func $read (param i32 i64 i32)))
    (import "w" "write" (func $write (param i32 i32 i32 i32)))
    (import "w" "stdin" (func $stdin (result i32)))
    (import "w" "stdout" (func $stdout (result i32)))
    (import "w" "stderr" (func $stderr (result i32)))
    (import "w" "environment" (func $environment (param i32)))
    (import "w" "arguments" (func $arguments (param i32)))
    (import "w" "exit" (func $exit (param i32)))
    (import "w" "exit-code" (func $exit-code (param i32)))
    (import "w" "after" (func $after (param i64) (result i32)))
    (import "w" "directories" (func $directories (param i32)))
    (import "w" "open" (func $open (param i32 i32 i32 i32 i32 i32 i32)))
    (import "w" "file-write" (func $file-write (param i32 i32 i32 i64 i32)))
    (import "w" "file-read" (func $file-read (param i32 i64 i64 i32)))
    (import "l" "memory" (memory 1))
    (data (i32.const 1024) "error \00\00ok\n")
    ;; 0 to 63: results.  128: a digit to print.  2048 to 6143: a block of output.
    (global $out (mut i32) (i32.const -1))
    (func $put (param $at i32) (param $len i32)
      (if (i32.eq (global.get $out) (i32.const -1)) (then (global.set $out (call $stdout))))
      (call $write (global.get $out) (local.get $at) (local.get $len) (i32.const 0)))
    (func $number (param $n i32)
      (if (i32.ge_u (local.get $n) (i32.const 10))
        (then (call $number (i32.div_u (local.get $n) (i32.const 10)))))
      (i32.store8 (i32.const 128) (i32.add (i32.const 48) (i32.rem_u (local.get $n) (i32.const 10))))
      (call $put (i32.const 128) (i32.const 1)))
    (func $newline (i32.store8 (i32.const 128) (i32.const 10)) (call $put (i32.const 128) (i32.const 1)))
    (func $space (i32.store8 (i32.const 128) (i32.const 32)) (call $put (i32.const 128) (i32.const 1)))
    ;; The number that an argument is, after its first letter.
    (func $parse (param $at i32) (param $len i32) (result i32)
      (local $n i32)
      (block $done (loop $more
        (br_if $done (i32.eqz (local.get $len)))
        (local.set $n (i32.add (i32.mul (local.get $n) (i32.const 10))
          (i32.sub (i32.load8_u (local.get $at)) (i32.const 48))))
        (local.set $at (i32.add (local.get $at) (i32.const 1)))
        (local.set $len (i32.sub (local.get $len) (i32.const 1)))
        (br $more)))
      (local.get $n))
    ;; a: the arguments, one a line
    (func $print-arguments (param $list i32) (param $count i32)
      (loop $more (if (local.get $count) (then
        (call $put (i32.load (local.get $list)) (i32.load offset=4 (local.get $list)))
        (call $newline)
        (local.set $list (i32.add (local.get $list) (i32.const 8)))
        (local.set $count (i32.sub (local.get $count) (i32.const 1)))
        (br $more)))))
    ;; v: the variables, NAME VALUE
    (func $print-variables
      (local $list i32) (local $count i32)
      (call $environment (i32.const 0))
      (local.set $list (i32.load (i32.const 0)))
      (local.set $count (i32.load (i32.const 4)))
      (loop $more (if (local.get $count) (then
        (call $put (i32.load (local.get $list)) (i32.load offset=4 (local.get $list)))
        (call $space)
        (call $put (i32.load offset=8 (local.get $list)) (i32.load offset=12 (local.get $list)))
        (call $newline)
        (local.set $list (i32.add (local.get $list) (i32.const 16)))
        (local.set $count (i32.sub (local.get $count) (i32.const 1)))
        (br $more)))))
    ;; i: stdin to stdout
    (func $copy
      (local $in i32)
      (local.set $in (call $stdin))
      (loop $more
        (call $read (local.get $in) (i64.const 4096) (i32.const 0))
        (if (i32.eqz (i32.load8_u (i32.const 0))) (then
          (call $put (i32.load (i32.const 4)) (i32.load (i32.const 8)))
          (br $more)))))
    ;; oN: N blocks of 4096 bytes
    (func $blocks (param $n i32)
      (memory.fill (i32.const 2048) (i32.const 120) (i32.const 4096))
      (loop $more (if (local.get $n) (then
        (call $put (i32.const 2048) (i32.const 4096))
        (local.set $n (i32.sub (local.get $n) (i32.const 1)))
        (br $more)))))
    ;; fNAME opens NAME in the first directory for reading, F creates it and writes "ok" (and, with
    ;; more arguments, goes on as i): prints what it holds, or "error N", the number of the error-code
    (func $file (param $name i32) (param $len i32) (param $create i32)
      (local $file i32)
      (call $directories (i32.const 0))
      (if (i32.eqz (i32.load (i32.const 4))) (then (call $exit (i32.const 1))))
      (call $open (i32.load (i32.load (i32.const 0))) (i32.const 1) (local.get $name) (local.get $len)
        (local.get $create) (i32.add (i32.const 1) (i32.mul (local.get $create) (i32.const 2)))
        (i32.const 16))
      (if (i32.load8_u (i32.const 16)) (then (call $failed (i32.load8_u (i32.const 20))) return))
      (local.set $file (i32.load (i32.const 20)))
      (if (local.get $create) (then
        (call $file-write (local.get $file) (i32.const 1032) (i32.const 3) (i64.const 0) (i32.const 16))
        (if (i32.load8_u (i32.const 16)) (then (call $failed (i32.load8_u (i32.const 24))) return))))
      (call $file-read (local.get $file) (i64.const 4096) (i64.const 0) (i32.const 16))
      (if (i32.load8_u (i32.const 16)) (then (call $failed (i32.load8_u (i32.const 20))) return))
      (call $put (i32.load (i32.const 20)) (i32.load (i32.const 24))))
    (func $failed (param $code i32)
      (call $put (i32.const 1024) (i32.const 6))
      (call $number (local.get $code))
      (call $newline))
    ;; run: 0 for ok
    (func (export "run") (result i32)
      (local $list i32) (local $count i32) (local $at i32) (local $len i32) (local $op i32)
      (call $arguments (i32.const 0))
      (local.set $list (i32.load (i32.const 0)))
      (local.set $count (i32.load (i32.const 4)))
      (if (i32.lt_u (local.get $count) (i32.const 2)) (then (return (i32.const 0))))
      (local.set $at (i32.load offset=8 (local.get $list)))
      (local.set $len (i32.sub (i32.load offset=12 (local.get $list)) (i32.const 1)))
      (local.set $op (i32.load8_u (local.get $at)))
      (local.set $at (i32.add (local.get $at) (i32.const 1)))
      (if (i32.eq (local.get $op) (i32.const 97)) ;; a
        (then (call $print-arguments (local.get $list) (local.get $count))))
      (if (i32.eq (local.get $op) (i32.const 118)) (then (call $print-variables))) ;; v
      (if (i32.eq (local.get $op) (i32.const 105)) (then (call $copy))) ;; i
      (if (i32.eq (local.get $op) (i32.const 114)) (then (return (i32.const 1)))) ;; r: returns err
      (if (i32.eq (local.get $op) (i32.const 102)) ;; f
        (then (call $file (local.get $at) (local.get $len) (i32.const 0))))
      (if (i32.eq (local.get $op) (i32.const 70)) ;; F
        (then (call $file (local.get $at) (local.get $len) (i32.const 1))
          (if (i32.gt_u (local.get $count) (i32.const 2)) (then (call $copy)))))
      (if (i32.eq (local.get $op) (i32.const 116)) (then unreachable)) ;; t
      (if (i32.eq (local.get $op) (i32.const 108)) (then (loop $forever (br $forever)))) ;; l
      (local.set $count (call $parse (local.get $at) (local.get $len)))
      (if (i32.eq (local.get $op) (i32.const 120)) (then (call $exit (local.get $count)))) ;; xN: exit
      (if (i32.eq (local.get $op) (i32.const 99)) (then (call $exit-code (local.get $count)))) ;; cN
      (if (i32.eq (local.get $op) (i32.const 111)) (then (call $blocks (local.get $count)))) ;; oN
      (if (i32.eq (local.get $op) (i32.const 101)) (then ;; eN: to stderr
        (global.set $out (call $stderr)) (call $blocks (local.get $count))))
      (if (i32.eq (local.get $op) (i32.const 115)) ;; sN: sleeps N ms
        (then (call $block (call $after (i64.mul (i64.const 1000000) (i64.extend_i32_u (local.get $count)))))))
      (if (i32.eq (local.get $op) (i32.const 109)) (then ;; mN: 1 page more, N times; how many it got
        (local.set $len (i32.const 0))
        (block $done (loop $more
          (br_if $done (i32.eqz (local.get $count)))
          (br_if $done (i32.eq (memory.grow (i32.const 1)) (i32.const -1)))
          (i32.store (i32.shl (i32.sub (memory.size) (i32.const 1)) (i32.const 16)) (i32.const 1))
          (local.set $len (i32.add (local.get $len) (i32.const 1)))
          (local.set $count (i32.sub (local.get $count) (i32.const 1)))
          (br $more)))
        (call $number (local.get $len)) (call $newline)))
      (i32.const 0)))
  (core instance $wasi
    (export "block" (func $block)) (export "read" (func $read)) (export "write" (func $write))
    (export "stdin" (func $stdin)) (export "stdout" (func $stdout)) (export "stderr" (func $stderr))
    (export "environment" (func $environment)) (export "arguments" (func $arguments))
    (export "exit" (func $exit)) (export "exit-code" (func $exit-code)) (export "after" (func $after))
    (export "directories" (func $directories)) (export "open" (func $open))
    (export "file-write" (func $file-write)) (export "file-read" (func $file-read)))
  (core instance $guest (instantiate $main
    (with "w" (instance $wasi)) (with "l" (instance $lib))))
  (func $run (result (result)) (canon lift (core func $guest "run")))
  (instance (export "wasi:cli/run@0.2.0") (export "run" (func $run))))
