/* append FILE: one byte more in a file, as a sign that the guest ran once more. */
#include <fcntl.h>
#include <unistd.h>

int main(int argc, char **argv) {
  int fd = argc > 1 ? open(argv[1], O_WRONLY | O_CREAT | O_APPEND, 0666) : -1;
  return fd >= 0 && write(fd, "x", 1) == 1 ? 0 : 1;
}
