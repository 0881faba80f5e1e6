/* wasisup-core: started by the supervisor, never by hand.
 *
 *   wasisup-core zygote --library PATH --release RELEASE [--engine cranelift|pulley]... [--stay]
 *   wasisup-core brokers
 *   wasisup-core opener UID GID [GROUP]...
 *   wasisup-core --version  */
#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "engine/engine.h"
#include "engine/library.h"
#include "engine/resident.h"
#include "opener/opener.h"
#include "spec/spec.h"
#include "zygote/zygote.h"

enum { SOCKET = 3, USAGE = 2 };

const char *zygote_engine_release(void) { return WASMTIME_RELEASE; }

struct options {
  const char *library, *release;
  bool engines[2];
  bool stay;
};

static int usage(const char *what) {
  fprintf(stderr,
          "wasisup-core: %s\n"
          "usage: wasisup-core zygote --library PATH --release RELEASE [--engine cranelift|pulley] "
          "[--stay]\n"
          "       wasisup-core brokers\n"
          "       wasisup-core opener UID GID [GROUP]...\n"
          "It is started by the wasisup command with a socket as descriptor 3.\n",
          what);
  return USAGE;
}

static int parse(int argc, char **argv, struct options *o) {
  static const struct option longs[] = {{"library", required_argument, NULL, 'l'},
                                        {"release", required_argument, NULL, 'r'},
                                        {"engine", required_argument, NULL, 'e'},
                                        {"stay", no_argument, NULL, 's'},
                                        {0}};
  int c;
  while ((c = getopt_long(argc, argv, "", longs, NULL)) != -1) {
    if (c == 'l')
      o->library = optarg;
    else if (c == 'r')
      o->release = optarg;
    else if (c == 's')
      o->stay = true;
    else if (c == 'e' && strcmp(optarg, "cranelift") == 0)
      o->engines[WS_ENGINE_CRANELIFT] = true;
    else if (c == 'e' && strcmp(optarg, "pulley") == 0)
      o->engines[WS_ENGINE_PULLEY] = true;
    else
      return -1;
  }
  return o->library && o->release && optind + 1 == argc && !strcmp(argv[optind], "zygote") ? 0 : -1;
}

static int prepare(const struct options *o, struct ws_error *e) {
  int r = engine_library_load(o->library, o->release, e);
  for (uint32_t kind = 0; kind < 2 && !r; kind++) {
    if (o->engines[kind])
      r = engine_prepare(kind, false, e);
    if (!r && o->engines[kind] && o->stay)
      engine_component_ready(kind);
  }
  if (!r && o->stay)
    engine_make_resident();
  return r;
}

/* Launches carry up to WS_SPEC_MAX_FDS descriptors; each worker then gets its own, lower limit. */
static void raise_descriptor_limit(void) {
  struct rlimit limit;
  if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
  }
}

/* The guest's stack is the process's, of which the engine takes 512 KiB and traps beyond it:
 * that much has to be there, and as much again for the host functions below. */
static int ensure_stack(struct ws_error *e) {
  const rlim_t usual = 8 << 20, least = 2 << 20;
  struct rlimit limit;
  if (getrlimit(RLIMIT_STACK, &limit) < 0)
    return ws_fail(e, errno, "stack", "getrlimit");
  if (limit.rlim_cur != RLIM_INFINITY && limit.rlim_cur < usual) {
    limit.rlim_cur = limit.rlim_max == RLIM_INFINITY || limit.rlim_max > usual ? usual : limit.rlim_max;
    if (limit.rlim_cur < least || setrlimit(RLIMIT_STACK, &limit) < 0)
      return ws_fail(e, EAGAIN, "stack", "the limit on the stack (ulimit -s) is below 2 MiB");
  }
  return 0;
}

/* What the parent ignores (Python: SIGPIPE, SIGXFSZ) or blocks would be inherited. */
static void reset_signals(void) {
  sigset_t none;
  for (int signal = 1; signal < NSIG; signal++)
    if (signal != SIGKILL && signal != SIGSTOP)
      sigaction(signal, &(struct sigaction){.sa_handler = SIG_DFL}, NULL);
  sigemptyset(&none);
  sigprocmask(SIG_SETMASK, &none, NULL);
  /* The terminal's keys reach the whole foreground group; the supervisor alone acts on them. */
  static const int keys[] = {SIGINT, SIGQUIT, SIGTSTP, SIGHUP, SIGTERM};
  for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
    sigaction(keys[i], &(struct sigaction){.sa_handler = SIG_IGN}, NULL);
}

static int run_opener(int argc, char **argv) {
  clearenv();
  reset_signals();
  int status = opener_main(SOCKET, argc, argv);
  return status < 0 ? usage("these are not the numbers of a user and of groups") : status;
}

/* Whoever launches brokers needs no engine. */
static int run_brokers(void) {
  struct ws_error error = {0};
  clearenv();
  reset_signals();
  raise_descriptor_limit();
  return zygote_serve(ZYGOTE_OF_BROKERS, SOCKET, false, 0, &error);
}

int main(int argc, char **argv) {
  struct options options = {0};
  struct ws_error error = {0};
  if (argc == 2 && strcmp(argv[1], "--version") == 0) {
    puts("wasisup-core, wasmtime " WASMTIME_RELEASE);
    return 0;
  }
  if (argc > 1 && strcmp(argv[1], "opener") == 0)
    return run_opener(argc - 2, argv + 2);
  if (argc == 2 && strcmp(argv[1], "brokers") == 0)
    return run_brokers();
  if (parse(argc, argv, &options) < 0)
    return usage("these arguments are not understood");
  /* The engine's environment is the supervisor's: nothing in it is for the engine. */
  clearenv();
  reset_signals();
  raise_descriptor_limit();
  int result = ensure_stack(&error);
  if (!result)
    result = prepare(&options, &error);
  return zygote_serve(ZYGOTE_OF_WORKERS, SOCKET, options.stay, result, &error);
}
