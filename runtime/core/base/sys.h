/* System calls that the C library of a supported distribution may lack a wrapper for. */
#pragma once

#include <fcntl.h>
#include <linux/mount.h>
#include <linux/openat2.h>
#include <linux/sched.h>
#include <stdint.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef __NR_mount_setattr
#error "kernel headers of 5.12 or later are needed"
#endif

static inline long sys_clone3(struct clone_args *args) {
  return syscall(__NR_clone3, args, sizeof *args);
}

static inline int sys_open_tree(int dirfd, const char *path, unsigned flags) {
  return (int)syscall(__NR_open_tree, dirfd, path, flags);
}

static inline int sys_move_mount(int from, const char *from_path, int to, const char *to_path,
                                 unsigned flags) {
  return (int)syscall(__NR_move_mount, from, from_path, to, to_path, flags);
}

static inline int sys_mount_setattr(int dirfd, unsigned flags, struct mount_attr *attr) {
  return (int)syscall(__NR_mount_setattr, dirfd, "", flags | AT_EMPTY_PATH, attr, sizeof *attr);
}

static inline int sys_fsopen(const char *type) {
  return (int)syscall(__NR_fsopen, type, FSOPEN_CLOEXEC);
}

static inline int sys_fsconfig(int fs, unsigned command, const char *key, const char *value) {
  return (int)syscall(__NR_fsconfig, fs, command, key, value, 0);
}

static inline int sys_fsmount(int fs, unsigned attributes) {
  return (int)syscall(__NR_fsmount, fs, FSMOUNT_CLOEXEC, attributes);
}

static inline int sys_pivot_root(const char *new_root, const char *put_old) {
  return (int)syscall(__NR_pivot_root, new_root, put_old);
}

static inline int sys_openat2(int dirfd, const char *path, const struct open_how *how) {
  return (int)syscall(__NR_openat2, dirfd, path, how, sizeof *how);
}

static inline int sys_close_range(unsigned first, unsigned last) {
  return (int)syscall(__NR_close_range, first, last, 0);
}
