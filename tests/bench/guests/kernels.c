/* Compute kernels, timed from inside, so that starting up is no part of the figure.
 *
 * kernels NAME ROUNDS prints "NAME microseconds-per-round checksum"; one round goes first untimed.
 * The checksum shows that every host computed the same. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { SIEVE = 1 << 20, ORDER = 128, MESSAGE = 1 << 18, ITEMS = 1 << 16, DEPTH = 27 };

/* --- sieve: bytes, strided stores --- */

static uint8_t composite[SIEVE];

static uint64_t sieve(void) {
  uint64_t primes = 0;
  memset(composite, 0, sizeof composite);
  for (uint32_t i = 2; i < SIEVE; i++) {
    if (composite[i])
      continue;
    primes++;
    for (uint32_t j = i + i; j < SIEVE; j += i)
      composite[j] = 1;
  }
  return primes;
}

/* --- matmul: doubles --- */

static double left[ORDER][ORDER], right[ORDER][ORDER], product[ORDER][ORDER];

static uint64_t matmul(void) {
  for (int i = 0; i < ORDER; i++)
    for (int j = 0; j < ORDER; j++) {
      left[i][j] = i + j;
      right[i][j] = i - j;
    }
  for (int i = 0; i < ORDER; i++)
    for (int j = 0; j < ORDER; j++) {
      double sum = 0;
      for (int k = 0; k < ORDER; k++)
        sum += left[i][k] * right[k][j];
      product[i][j] = sum;
    }
  return (uint64_t)(int64_t)product[ORDER - 1][1];
}

/* --- sha256: 32-bit rotations and additions (FIPS 180-4) over whole blocks, without padding --- */

static uint32_t constants[64], initial[8];
static uint8_t message[MESSAGE];

/* The first 32 bits of the fractional part of n to the power 1/root, by integer bisection. */
static uint32_t root_fraction(uint32_t n, int root) {
  unsigned __int128 wanted = (unsigned __int128)n << (root == 2 ? 64 : 96);
  uint64_t low = 0, high = (uint64_t)1 << 38;
  while (high - low > 1) {
    uint64_t middle = low + (high - low) / 2;
    unsigned __int128 power = (unsigned __int128)middle * middle;
    if (root == 3)
      power *= middle;
    if (power <= wanted)
      low = middle;
    else
      high = middle;
  }
  return (uint32_t)low;
}

static void make_constants(void) {
  int found = 0;
  for (uint32_t n = 2; found < 64; n++) {
    int prime = 1;
    for (uint32_t d = 2; d * d <= n; d++)
      prime = prime && n % d != 0;
    if (!prime)
      continue;
    if (found < 8)
      initial[found] = root_fraction(n, 2);
    constants[found++] = root_fraction(n, 3);
  }
}

static uint32_t rotate(uint32_t x, int n) { return x >> n | x << (32 - n); }

static void sha256_block(uint32_t state[8], const uint8_t *block) {
  uint32_t w[64], s[8];
  for (int i = 0; i < 16; i++)
    w[i] = (uint32_t)block[4 * i] << 24 | (uint32_t)block[4 * i + 1] << 16 |
           (uint32_t)block[4 * i + 2] << 8 | block[4 * i + 3];
  for (int i = 16; i < 64; i++) {
    uint32_t a = w[i - 15], b = w[i - 2];
    w[i] = w[i - 16] + (rotate(a, 7) ^ rotate(a, 18) ^ a >> 3) + w[i - 7] +
           (rotate(b, 17) ^ rotate(b, 19) ^ b >> 10);
  }
  memcpy(s, state, sizeof s);
  for (int i = 0; i < 64; i++) {
    uint32_t high = rotate(s[4], 6) ^ rotate(s[4], 11) ^ rotate(s[4], 25);
    uint32_t one = s[7] + high + ((s[4] & s[5]) ^ (~s[4] & s[6])) + constants[i] + w[i];
    uint32_t low = rotate(s[0], 2) ^ rotate(s[0], 13) ^ rotate(s[0], 22);
    uint32_t two = low + ((s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]));
    memmove(s + 1, s, 7 * sizeof *s);
    s[4] += one;
    s[0] = one + two;
  }
  for (int i = 0; i < 8; i++)
    state[i] += s[i];
}

static uint64_t sha256(void) {
  uint32_t state[8];
  if (!constants[0])
    make_constants();
  memcpy(state, initial, sizeof state);
  for (uint32_t i = 0; i < MESSAGE; i++)
    message[i] = (uint8_t)i;
  for (uint32_t at = 0; at < MESSAGE; at += 64)
    sha256_block(state, message + at);
  return (uint64_t)state[0] << 32 | state[1];
}

/* --- fib: direct calls; volatile keeps the compiler from unrolling the recursion away --- */

static volatile uint32_t depth = DEPTH;

__attribute__((noinline)) static uint64_t fib_of(uint32_t n) {
  return n < 2 ? n : fib_of(n - 1) + fib_of(n - 2);
}

static uint64_t fib(void) { return fib_of(depth); }

/* --- sort: calls through a function pointer --- */

static uint32_t items[ITEMS];

static int by_value(const void *a, const void *b) {
  uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
  return x < y ? -1 : x > y;
}

/* Quicksort of our own: the C libraries' qsort differ from host to host. */
static void sort_range(uint32_t *v, int n, int (*compare)(const void *, const void *)) {
  while (n > 1) {
    uint32_t pivot = v[n / 2];
    int i = 0, j = n - 1;
    while (i <= j) {
      while (compare(&v[i], &pivot) < 0)
        i++;
      while (compare(&v[j], &pivot) > 0)
        j--;
      if (i <= j) {
        uint32_t t = v[i];
        v[i++] = v[j];
        v[j--] = t;
      }
    }
    sort_range(v, j + 1, compare);
    v += i;
    n -= i;
  }
}

static int (*volatile comparison)(const void *, const void *) = by_value;

static uint64_t sort(void) {
  uint32_t x = 2463534242u;
  for (int i = 0; i < ITEMS; i++) {
    x ^= x << 13;
    x ^= x >> 17;
    x ^= x << 5;
    items[i] = x;
  }
  sort_range(items, ITEMS, comparison);
  return (uint64_t)items[0] << 32 | items[ITEMS / 2];
}

static const struct kernel {
  const char *name;
  uint64_t (*run)(void);
} kernels[] = {
    {"sieve", sieve}, {"matmul", matmul}, {"sha256", sha256}, {"fib", fib}, {"sort", sort},
};

int main(int argc, char **argv) {
  int rounds = argc > 2 ? atoi(argv[2]) : 1;
  for (size_t i = 0; argc > 1 && i < sizeof kernels / sizeof *kernels; i++) {
    if (strcmp(kernels[i].name, argv[1]))
      continue;
    uint64_t sum = kernels[i].run();
    struct timespec start, end;
    clock_gettime(CLOCK_MONOTONIC, &start);
    for (int round = 0; round < rounds; round++)
      sum ^= kernels[i].run() + (uint64_t)round;
    clock_gettime(CLOCK_MONOTONIC, &end);
    double us = (double)(end.tv_sec - start.tv_sec) * 1e6 +
                (double)(end.tv_nsec - start.tv_nsec) / 1e3;
    printf("%s %.3f %016llx\n", argv[1], us / rounds, (unsigned long long)sum);
    return 0;
  }
  fputs("usage: kernels sieve|matmul|sha256|fib|sort ROUNDS\n", stderr);
  return 2;
}
