/* The opener's system calls.  Any other is answered by ENOSYS: the C library may try a newer call
 * before the one it settles for.  */
#include <errno.h>
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "opener/opener.h"

/* A sanitizer's own calls are not foreseen. */
#if defined(__SANITIZE_ADDRESS__)
#define FILTERED 0
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define FILTERED 0
#endif
#endif
#ifndef FILTERED
#define FILTERED 1
#endif

#define ALLOW(call)                                \
  BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, call, 0, 1), \
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW)

int opener_filter(struct ws_error *e) {
  static struct sock_filter filter[] = {
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, arch)),
      BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, AUDIT_ARCH_X86_64, 1, 0),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS),
      BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
      ALLOW(SYS_recvmsg),
      ALLOW(SYS_sendmsg),
      ALLOW(SYS_sendto), /* hello */
      ALLOW(SYS_openat2),
      ALLOW(SYS_openat),
      ALLOW(SYS_close),
      ALLOW(SYS_fstat),
      ALLOW(SYS_newfstatat), /* fstat(3) of glibc 2.33 */
      ALLOW(SYS_fstatfs),
      ALLOW(SYS_fcntl),
      ALLOW(SYS_readlink),
      ALLOW(SYS_faccessat2),
      ALLOW(SYS_memfd_create),
      ALLOW(SYS_pread64),
      ALLOW(SYS_write),
      ALLOW(SYS_rt_sigreturn),
      ALLOW(SYS_restart_syscall), /* after SIGSTOP and SIGCONT */
      ALLOW(SYS_exit_group),
      BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | ENOSYS),
  };
  const struct sock_fprog program = {.len = sizeof filter / sizeof *filter, .filter = filter};
  if (FILTERED && syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) < 0 &&
      errno != ENOSYS && errno != EINVAL)
    return ws_fail(e, errno, "seccomp", "loading the opener's filter");
  return 0;
}
