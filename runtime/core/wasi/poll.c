/* poll_oneoff: clocks and descriptors, in both layouts of a subscription. */
#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <unistd.h>

#include "wasi/clock.h"
#include "wasi/errno.h"
#include "wasi/functions.h"
#include "wasi/memory.h"
#include "wasi/path.h"
#include "wasi/table.h"

#define NS_PER_S UINT64_C(1000000000)
#define NEVER UINT64_MAX

/* Descriptors that are really polled, each once however often it is subscribed to: never more than
 * the table holds, so memory is bounded by max_fds and not by the guest's count. */
#define SET_INLINE 32u

struct poll_set {
  struct pollfd *fds;
  uint32_t *guest; /* the guest number of each */
  uint32_t count;
  uint32_t last; /* where the previous look-up ended: subscriptions to one fd come in pairs */
  struct pollfd inline_fds[SET_INLINE];
  uint32_t inline_guest[SET_INLINE];
};

struct poll_call {
  struct wasi_ctx *ctx;
  const struct wasi_memory *mem;
  enum wasi_snapshot snapshot;
  uint64_t subs, events;
  uint32_t count;
  uint64_t start; /* CLOCK_MONOTONIC at entry: relative times count from here */
  struct poll_set set;
};

struct subscription {
  uint64_t userdata;
  uint8_t type;
  uint32_t fd;
  uint32_t clock;
  uint64_t timeout;
  bool absolute;
};

/* The array was checked as a whole; a failing read means that the guest's memory is gone. */
static bool read_subscription(const struct poll_call *call, uint32_t index,
                              struct subscription *out) {
  uint8_t raw[W_SIZE_SUBSCRIPTION_UNSTABLE] = {0};
  bool old = call->snapshot == WASI_UNSTABLE;
  uint64_t size = old ? W_SIZE_SUBSCRIPTION_UNSTABLE : W_SIZE_SUBSCRIPTION;
  if (!wasi_mem_read(call->mem, call->subs + index * size, raw, size)) {
    return false;
  }
  const uint8_t *clock = raw + (old ? 24 : 16); /* the old one begins with an identifier */
  *out = (struct subscription){
      .userdata = wasi_get64(raw),
      .type = raw[8],
      .fd = wasi_get32(raw + 16),
      .clock = wasi_get32(clock),
      .timeout = wasi_get64(clock + 8),
      .absolute = (wasi_get16(clock + 24) & W_SUBCLOCK_ABSTIME) != 0,
  };
  return true;
}

static uint64_t add(uint64_t a, uint64_t b) { return a > NEVER - b ? NEVER : a + b; }

/* An event's error, or its moment on CLOCK_MONOTONIC.  An absolute time is rounded up to the step
 * of the guest's clock: woken earlier, the guest would read a time before the one it waited for. */
static uint32_t deadline(const struct poll_call *call, const struct subscription *sub,
                         uint64_t *when) {
  uint64_t now = 0;
  if (sub->clock > W_CLOCK_MONOTONIC) {
    return W_INVAL; /* as wasmtime: the CPU-time clocks cannot be waited for */
  }
  if (!sub->absolute) {
    *when = add(call->start, sub->timeout);
    return W_SUCCESS;
  }
  uint64_t step = wasi_clock_step(call->ctx);
  uint64_t rest = sub->timeout % step;
  uint64_t timeout = rest == 0 ? sub->timeout : add(sub->timeout, step - rest);
  if (sub->clock == W_CLOCK_MONOTONIC) {
    *when = timeout;
    return W_SUCCESS;
  }
  /* Asked anew on every round: the wall clock may have been set meanwhile. */
  uint64_t wall = 0;
  uint32_t err = wasi_clock_now(W_CLOCK_REALTIME, &wall);
  if (err == W_SUCCESS) {
    err = wasi_clock_now(W_CLOCK_MONOTONIC, &now);
  }
  *when = timeout <= wall ? 0 : add(now, timeout - wall);
  return err;
}

/* What a subscription to a descriptor can be answered with: an error, "ready" (regular files and
 * the like), or the need to poll. */
static uint32_t classify(const struct poll_call *call, const struct subscription *sub,
                         const struct wasi_desc **desc, bool *ready) {
  struct wasi_entry *entry = wasi_table_get(&call->ctx->table, sub->fd);
  bool reads = sub->type == W_EVENT_FD_READ;
  *ready = false;
  if (entry == NULL || entry->desc->kind == WASI_KIND_DIR) {
    return W_BADF;
  }
  *desc = entry->desc;
  uint64_t right = reads ? W_RIGHT_FD_READ : W_RIGHT_FD_WRITE;
  if (entry->desc->kind == WASI_KIND_LISTENER) {
    right = reads ? W_RIGHT_SOCK_ACCEPT : 0;
  }
  if ((entry->rights & right) != right) {
    return entry->desc->kind == WASI_KIND_STDIO ? W_BADF : W_NOTCAPABLE;
  }
  if (!(entry->rights & W_RIGHT_POLL_FD_READWRITE)) {
    return W_NOTCAPABLE;
  }
  *ready = entry->desc->filetype == W_FILETYPE_REGULAR_FILE;
  return W_SUCCESS;
}

static struct pollfd *find(struct poll_set *set, uint32_t guest) {
  for (uint32_t i = 0; i < set->count; i++) {
    uint32_t at = (set->last + i) % set->count;
    if (set->guest[at] == guest) {
      set->last = at;
      return &set->fds[at];
    }
  }
  return NULL;
}

static bool set_grow(struct poll_call *call) {
  struct poll_set *set = &call->set;
  if (set->fds != set->inline_fds) {
    return false; /* it has room for the whole table already */
  }
  uint32_t size = call->ctx->table.size;
  struct pollfd *fds = malloc(size * sizeof *fds);
  uint32_t *guest = malloc(size * sizeof *guest);
  if (fds == NULL || guest == NULL || size <= set->count) {
    free(fds);
    free(guest);
    return false;
  }
  for (uint32_t i = 0; i < set->count; i++) {
    fds[i] = set->fds[i];
    guest[i] = set->guest[i];
  }
  set->fds = fds;
  set->guest = guest;
  return true;
}

static void set_free(struct poll_set *set) {
  if (set->fds != set->inline_fds) {
    free(set->fds);
    free(set->guest);
  }
}

static bool watch(struct poll_call *call, uint32_t guest, int fd, short events) {
  struct poll_set *set = &call->set;
  struct pollfd *slot = find(set, guest);
  if (slot == NULL) {
    uint32_t room = set->fds == set->inline_fds ? SET_INLINE : call->ctx->table.size;
    if (set->count >= room && !set_grow(call)) {
      return false;
    }
    set->guest[set->count] = guest;
    slot = &set->fds[set->count++];
    *slot = (struct pollfd){.fd = fd};
  }
  slot->events |= events;
  return true;
}

/* First pass: what to poll, and until when (0: something is ready as it stands). */
static uint32_t prepare(struct poll_call *call, uint64_t *until) {
  *until = NEVER;
  for (uint32_t i = 0; i < call->count; i++) {
    struct subscription sub;
    if (!read_subscription(call, i, &sub)) {
      return W_FAULT;
    }
    uint64_t when = 0;
    if (sub.type == W_EVENT_CLOCK) {
      if (deadline(call, &sub, &when) != W_SUCCESS) {
        when = 0;
      }
    } else if (sub.type > W_EVENT_FD_WRITE) {
      return W_INVAL;
    } else {
      const struct wasi_desc *desc;
      bool ready;
      if (classify(call, &sub, &desc, &ready) == W_SUCCESS && !ready) {
        short events = sub.type == W_EVENT_FD_READ ? POLLIN : POLLOUT;
        if (!watch(call, sub.fd, desc->fd, events)) {
          return W_NOMEM;
        }
        continue;
      }
    }
    *until = when < *until ? when : *until;
  }
  return W_SUCCESS;
}

/* Sleeps until a watched descriptor is ready or `until` has come, whichever is first. */
static uint32_t wait_for(struct poll_call *call, uint64_t until) {
  uint64_t now = 0;
  uint32_t err = wasi_clock_now(W_CLOCK_MONOTONIC, &now);
  if (err != W_SUCCESS) {
    return err;
  }
  uint64_t left = until > now ? until - now : 0;
  if (left == 0 && call->set.count == 0) {
    return W_SUCCESS;
  }
  struct timespec timeout = {.tv_sec = (time_t)(left / NS_PER_S),
                             .tv_nsec = (long)(left % NS_PER_S)};
  int n = ppoll(call->set.fds, call->set.count, until == NEVER ? NULL : &timeout, NULL);
  if (n < 0 && errno != EINTR) {
    return wasi_errno(errno);
  }
  if (n < 0) { /* the kernel leaves revents as they were */
    for (uint32_t i = 0; i < call->set.count; i++) {
      call->set.fds[i].revents = 0;
    }
  }
  return W_SUCCESS;
}

/* How far a regular file still goes from its position; for writing there is always room. */
static uint64_t bytes_left(const struct wasi_desc *desc) {
  struct stat st;
  off_t at = lseek(desc->fd, 0, SEEK_CUR);
  if (at < 0 || wasi_host_fstat(desc->fd, &st) != 0 || st.st_size <= at) {
    return 0;
  }
  return (uint64_t)(st.st_size - at);
}

struct event {
  uint32_t err;
  uint64_t nbytes;
  uint16_t flags;
};

/* Has the descriptor's event come?  nbytes is 1 where the kernel only says "some". */
static bool fd_event(struct poll_call *call, const struct subscription *sub, struct event *event) {
  const struct wasi_desc *desc = NULL;
  bool ready, reads = sub->type == W_EVENT_FD_READ;
  *event = (struct event){.nbytes = 1};
  event->err = classify(call, sub, &desc, &ready);
  if (event->err != W_SUCCESS) {
    event->nbytes = 0;
    return true;
  }
  if (ready) {
    if (reads) {
      event->nbytes = bytes_left(desc);
      event->flags = event->nbytes == 0 ? W_EVENTRW_HANGUP : 0;
    }
    return true;
  }
  struct pollfd *slot = call->set.count > 0 ? find(&call->set, sub->fd) : NULL;
  short wanted = reads ? POLLIN : POLLOUT;
  if (slot == NULL || !(slot->revents & (wanted | POLLERR | POLLHUP | POLLNVAL))) {
    return false;
  }
  event->err = slot->revents & POLLNVAL ? W_BADF : W_SUCCESS;
  event->flags = slot->revents & POLLHUP ? W_EVENTRW_HANGUP : 0;
  event->nbytes = slot->revents & wanted ? 1 : 0;
  return true;
}

static bool put_event(const struct poll_call *call, uint32_t index, const struct subscription *sub,
                      const struct event *event) {
  uint8_t out[W_SIZE_EVENT] = {0};
  wasi_put64(out, sub->userdata);
  wasi_put16(out + 8, (uint16_t)event->err);
  out[10] = sub->type;
  wasi_put64(out + 16, event->nbytes);
  wasi_put16(out + 24, event->flags);
  return wasi_mem_write(call->mem, call->events + (uint64_t)index * W_SIZE_EVENT, out, sizeof out);
}

/* Second pass: the events that have come, in the order of their subscriptions. */
static uint32_t collect(struct poll_call *call, uint32_t *done) {
  uint64_t now = 0;
  uint32_t err = wasi_clock_now(W_CLOCK_MONOTONIC, &now);
  for (uint32_t i = 0; err == W_SUCCESS && i < call->count; i++) {
    struct subscription sub;
    struct event event = {0};
    bool come;
    if (!read_subscription(call, i, &sub)) {
      return W_FAULT;
    }
    if (sub.type == W_EVENT_CLOCK) {
      uint64_t when = 0;
      event.err = deadline(call, &sub, &when);
      come = event.err != W_SUCCESS || when <= now;
    } else {
      come = fd_event(call, &sub, &event);
    }
    if (come && !put_event(call, (*done)++, &sub, &event)) {
      return W_FAULT;
    }
  }
  return err;
}

/* poll_oneoff(subscriptions, events, nsubscriptions, nevents*).
 * A subscription that cannot be served is an event with an error, as the specification has it
 * (wasmtime fails the whole call); no subscriptions at all are EINVAL. */
static uint32_t poll_oneoff(struct wasi_ctx *ctx, const struct wasi_memory *mem,
                            const uint64_t *args, enum wasi_snapshot snapshot) {
  uint32_t count = (uint32_t)args[2];
  uint32_t size = snapshot == WASI_UNSTABLE ? W_SIZE_SUBSCRIPTION_UNSTABLE : W_SIZE_SUBSCRIPTION;
  if (count == 0) {
    return W_INVAL;
  }
  if (!wasi_mem_ok_array(mem, args[0], count, size) ||
      !wasi_mem_ok_array(mem, args[1], count, W_SIZE_EVENT) || !wasi_mem_ok(mem, args[3], 4)) {
    return W_FAULT;
  }
  struct poll_call call;
  call.ctx = ctx;
  call.mem = mem;
  call.snapshot = snapshot;
  call.subs = args[0];
  call.events = args[1];
  call.count = count;
  call.set.fds = call.set.inline_fds;
  call.set.guest = call.set.inline_guest;
  call.set.count = call.set.last = 0;
  uint32_t done = 0;
  uint32_t err = wasi_clock_now(W_CLOCK_MONOTONIC, &call.start);
  while (err == W_SUCCESS && done == 0) {
    uint64_t until;
    err = prepare(&call, &until);
    if (err == W_SUCCESS) {
      err = wait_for(&call, until);
    }
    if (err == W_SUCCESS) {
      err = collect(&call, &done);
    }
  }
  set_free(&call.set);
  if (err != W_SUCCESS) {
    return err;
  }
  return wasi_mem_put32(mem, args[3], done) ? W_SUCCESS : W_FAULT;
}

WASI_CALL(poll_oneoff) { return poll_oneoff(ctx, mem, args, WASI_PREVIEW1); }
WASI_CALL(poll_oneoff_unstable) { return poll_oneoff(ctx, mem, args, WASI_UNSTABLE); }
