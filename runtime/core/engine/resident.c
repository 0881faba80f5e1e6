/* A fork does not copy page tables of file mappings: each worker would fault the library's code in
 * again, page by page, and give it back when it ends; together a fifth of a short run.  Anonymous
 * huge pages are shared by the fork as they are.
 *
 * The copy is written first, made executable (and no longer writable) next, and only then put in the
 * place of the original in one step: no memory is ever writable and executable.  */
#include "engine/resident.h"

#include <fcntl.h>
#include <link.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/fd.h"
#include "engine/library.h"

enum { HUGE = 2 << 20 };

static uintptr_t up(uintptr_t address) { return (address + HUGE - 1) & ~(uintptr_t)(HUGE - 1); }
static uintptr_t down(uintptr_t address) { return address & ~(uintptr_t)(HUGE - 1); }

/* [start, end) is code or constants, aligned to huge pages. */
static void move(uintptr_t start, uintptr_t end, int protection) {
  size_t size = end - start;
  char *room = mmap(NULL, size + HUGE, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
  if (room == MAP_FAILED)
    return;
  char *copy = (char *)up((uintptr_t)room);
  char *last = room + size + HUGE;
  madvise(copy, size, MADV_HUGEPAGE);
  memcpy(copy, (const void *)start, size);
  if (mprotect(copy, size, protection) == 0 &&
      mremap(copy, size, size, MREMAP_MAYMOVE | MREMAP_FIXED, (void *)start) != MAP_FAILED) {
    if (copy > room)
      munmap(room, (size_t)(copy - room));
    if (copy + size < last)
      munmap(copy + size, (size_t)(last - (copy + size)));
    return;
  }
  munmap(room, size + HUGE);
}

/* Small anonymous pages would make every fork slower, not faster. */
static bool has_huge_pages(void) {
  char mode[64] = "";
  ws_cleanup_fd int fd =
      open("/sys/kernel/mm/transparent_hugepage/enabled", O_RDONLY | O_CLOEXEC);
  return fd >= 0 && read(fd, mode, sizeof mode - 1) > 0 && !strstr(mode, "[never]");
}

static bool holds(const struct dl_phdr_info *info, uintptr_t address) {
  for (int i = 0; i < info->dlpi_phnum; i++) {
    const ElfW(Phdr) *segment = &info->dlpi_phdr[i];
    if (segment->p_type == PT_LOAD && address >= info->dlpi_addr + segment->p_vaddr &&
        address < info->dlpi_addr + segment->p_vaddr + segment->p_memsz)
      return true;
  }
  return false;
}

/* Looks for the object that one of the library's functions lies in. */
static int find(struct dl_phdr_info *info, size_t size, void *unused) {
  (void)size;
  (void)unused;
  if (!holds(info, (uintptr_t)engine.wasmtime_module_new))
    return 0;
  for (int i = 0; i < info->dlpi_phnum; i++) {
    const ElfW(Phdr) *segment = &info->dlpi_phdr[i];
    uintptr_t start = info->dlpi_addr + segment->p_vaddr, end = start + segment->p_memsz;
    if (segment->p_type == PT_LOAD && !(segment->p_flags & PF_W) && up(start) < down(end))
      move(up(start), down(end), PROT_READ | (segment->p_flags & PF_X ? PROT_EXEC : 0));
  }
  return 1;
}

void engine_make_resident(void) {
  if (has_huge_pages())
    dl_iterate_phdr(find, NULL);
}

enum { PAGE = 4096, STACK = 64 << 10, HEAP = 1 << 20 };

static void populate(uintptr_t start, uintptr_t end) {
  start &= ~(uintptr_t)(PAGE - 1);
  end = (end + PAGE - 1) & ~(uintptr_t)(PAGE - 1);
  if (start < end)
    (void)madvise((void *)start, end - start, MADV_POPULATE_WRITE); /* else: faults, later */
}

static int prefault_data(struct dl_phdr_info *info, size_t size, void *unused) {
  (void)size;
  (void)unused;
  uintptr_t relro_end = 0;
  for (int i = 0; i < info->dlpi_phnum; i++) {
    const ElfW(Phdr) *segment = &info->dlpi_phdr[i];
    if (segment->p_type == PT_GNU_RELRO)
      relro_end = info->dlpi_addr + segment->p_vaddr + segment->p_memsz;
  }
  for (int i = 0; i < info->dlpi_phnum; i++) {
    const ElfW(Phdr) *segment = &info->dlpi_phdr[i];
    uintptr_t start = info->dlpi_addr + segment->p_vaddr, end = start + segment->p_memsz;
    if (segment->p_type == PT_LOAD && (segment->p_flags & PF_W))
      populate(relro_end > start && relro_end < end ? relro_end + PAGE - 1 : start, end);
  }
  return 0;
}

void engine_prefault(void) {
  volatile char stack[STACK];
  for (size_t at = 0; at < sizeof stack; at += PAGE)
    stack[at] = 0;
  dl_iterate_phdr(prefault_data, NULL);
  uintptr_t top = (uintptr_t)sbrk(0);
  void *block = malloc(1); /* somewhere in the heap, which ends at the break */
  if (block && top > (uintptr_t)block && top - (uintptr_t)block < HEAP)
    populate((uintptr_t)block, top);
  free(block);
}
