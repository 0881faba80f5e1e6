/* Errors as values: a failing step fills one and returns a negative errno; nothing here exits.
 *
 * Before the fork the zygote reports an error to its supervisor and goes on serving; after the
 * fork the worker copies it into the run record and leaves.  */
#pragma once

struct ws_error {
  int err;          /* errno of the failing call, positive; 0 when the failure is not a system call's */
  char step[48];    /* which step of the set-up failed, as the documentation names it */
  char detail[256]; /* what it was working on, for a person to read */
};

/* Fills `e` and returns -err (or -EINVAL when err is 0), so that callers write `return ws_fail(...)`. */
__attribute__((format(printf, 4, 5))) int ws_fail(struct ws_error *e, int err, const char *step,
                                                  const char *fmt, ...);
