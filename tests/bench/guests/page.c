/* A CGI program that says hello. */
#include <stdio.h>

int main(void) {
  fputs("content-type: text/plain\ncontent-length: 13\n\nhello, world\n", stdout);
  return 0;
}
