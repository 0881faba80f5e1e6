#include "base/error.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>

int ws_fail(struct ws_error *e, int err, const char *step, const char *fmt, ...) {
  e->err = err;
  snprintf(e->step, sizeof e->step, "%s", step);
  va_list ap;
  va_start(ap, fmt);
  vsnprintf(e->detail, sizeof e->detail, fmt, ap);
  va_end(ap);
  return err ? -err : -EINVAL;
}
