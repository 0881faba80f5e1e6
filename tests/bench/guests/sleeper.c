/* Says that it is there, and sleeps until it is killed. */
#include <stdio.h>
#include <unistd.h>

int main(void) {
  puts("ready");
  fflush(stdout);
  for (;;)
    sleep(3600);
}
