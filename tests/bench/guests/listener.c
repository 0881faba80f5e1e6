/* What the network's guest talks to, native, so that little of a figure is this end's.
 * listener BYTES: prints the three ports where it echoes a byte, swallows everything, and pours that
 * many bytes; ends when its stdin does. */
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

static char buffer[1 << 20];

static int listener(unsigned *port) {
  struct sockaddr_in at = {.sin_family = AF_INET, .sin_addr = {htonl(INADDR_LOOPBACK)}};
  socklen_t length = sizeof at;
  int fd = socket(AF_INET, SOCK_STREAM, 0);
  if (fd < 0 || bind(fd, (struct sockaddr *)&at, sizeof at) || listen(fd, 512) ||
      getsockname(fd, (struct sockaddr *)&at, &length))
    exit(1);
  *port = ntohs(at.sin_port);
  return fd;
}

static void echo(int fd) {
  while (read(fd, buffer, 1) == 1 && write(fd, buffer, 1) == 1) {
  }
}

static void swallow(int fd) {
  while (read(fd, buffer, sizeof buffer) > 0) {
  }
}

static void pour(int fd, unsigned long long left) {
  while (left) {
    ssize_t n = write(fd, buffer, left < sizeof buffer ? left : sizeof buffer);
    if (n <= 0) break;
    left -= (unsigned long long)n;
  }
}

int main(int argc, char **argv) {
  if (argc != 2) return 64;
  unsigned long long amount = strtoull(argv[1], NULL, 10);
  unsigned ports[3];
  struct pollfd fds[4] = {{.fd = 0, .events = POLLIN}};
  for (int i = 0; i < 3; i++) fds[1 + i] = (struct pollfd){listener(&ports[i]), POLLIN, 0};
  printf("%u %u %u\n", ports[0], ports[1], ports[2]);
  fflush(stdout);
  while (poll(fds, 4, -1) > 0 && !fds[0].revents)
    for (int i = 1; i < 4; i++) {
      if (!fds[i].revents) continue;
      int fd = accept(fds[i].fd, NULL, NULL);
      if (fd < 0) return 1;
      if (i == 1) echo(fd);
      if (i == 2) swallow(fd);
      if (i == 3) pour(fd, amount);
      close(fd);
    }
  return 0;
}
