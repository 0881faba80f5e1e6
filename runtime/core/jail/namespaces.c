/* clone3 made the namespaces; what is left is to give the user namespace its ids.  */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "base/fd.h"
#include "jail/jail.h"

static int put(const char *path, const char *text, struct ws_error *e) {
  ws_cleanup_fd int fd = open(path, O_WRONLY | O_CLOEXEC);
  if (fd < 0 || write(fd, text, strlen(text)) < 0)
    return ws_fail(e, errno, "namespaces", "%s: writing \"%s\"", path, text);
  return 0;
}

/* One id, mapped to itself: the worker is the caller outside and inside (user_namespaces(7): the
 * only map that needs no privilege; setgroups must be denied before the group map is written). */
int jail_map_ids(uid_t uid, gid_t gid, struct ws_error *e) {
  char map[64];
  int r = put("/proc/self/setgroups", "deny", e);
  if (r)
    return r;
  snprintf(map, sizeof map, "%u %u 1", gid, gid);
  if ((r = put("/proc/self/gid_map", map, e)))
    return r;
  snprintf(map, sizeof map, "%u %u 1", uid, uid);
  return put("/proc/self/uid_map", map, e);
}
