/* Sockets.  `types` needs only preopen 3; the other cases are given a listener as descriptor 3. */
#include "raw.h"

#ifdef UNSTABLE
#error "wasi_unstable has no sock_accept"
#endif

static void types(int argc, char **argv) {
  u32 file = open_at("sock-file", O_CREATE, FILE_RIGHTS, 0), n;
  uint16_t of;
  char buf[4];
  struct vec iov = {buf, 4};
  u32 fds[] = {file, 3, 99};
  for (int i = 0; i < 3; i++) {
    printf("descriptor %s\n", i == 0 ? "of a file" : i == 1 ? "of a directory" : "closed");
    say("accept", w_sock_accept(fds[i], 0, &n), NULL);
    say("recv", w_sock_recv(fds[i], &iov, 1, 0, &n, &of), NULL);
    say("send", w_sock_send(fds[i], &iov, 1, 0, &n), NULL);
    say("shutdown", w_sock_shutdown(fds[i], 3), NULL);
  }
}

/* Serves one connection: waits for it, upper-cases what arrives until the peer is done, answers. */
static void serve(int argc, char **argv) {
  struct subscription in;
  struct event out;
  struct fdstat st;
  u32 n = 0, conn = 0;
  uint16_t oflags = 0;
  char buf[4096];
  struct vec iov = {buf, sizeof buf};
  u32 err = w_fd_fdstat_get(3, &st);
  say("fdstat of the listener", err, "type %u", st.type);
  say("set_flags nonblock", w_fd_fdstat_set_flags(3, FD_NONBLOCK), NULL);
  say("accept, nobody there", w_sock_accept(3, 0, &conn), NULL);
  say("set_flags none", w_fd_fdstat_set_flags(3, 0), NULL);
  puts("listening");
  fflush(stdout);
  memset(&in, 0, sizeof in);
  in.tag = TAG_READ, in.u.fd = 3;
  say("poll", w_poll_oneoff(&in, &out, 1, &n), "%u", n);
  say("accept", w_sock_accept(3, 0, &conn), NULL);
  err = w_fd_fdstat_get(conn, &st);
  say("fdstat of the connection", err, "type %u", st.type);
  say("recv, peek", w_sock_recv(conn, &iov, 1, 1, &n, &oflags), NULL);
  for (;;) {
    err = w_sock_recv(conn, &iov, 1, 0, &n, &oflags);
    if (err || n == 0) break;
    for (u32 i = 0; i < n; i++)
      if (buf[i] >= 'a' && buf[i] <= 'z') buf[i] -= 32;
    struct vec reply = {buf, n};
    say("send", w_sock_send(conn, &reply, 1, 0, &n), "%u", n);
  }
  say("recv at the end", err, "%u", n);
  struct vec last = {"bye\n", 4};
  say("fd_write", w_fd_write(conn, &last, 1, &n), "%u", n);
  say("shutdown nothing", w_sock_shutdown(conn, 0), NULL);
  say("shutdown", w_sock_shutdown(conn, 2), NULL);
  say("close", w_fd_close(conn), NULL);
}

int main(int argc, char **argv) {
  static const struct test tests[] = {{"types", types}, {"serve", serve}, {NULL, NULL}};
  return run_case(tests, argc, argv);
}
