/* For a zygote that serves many runs.  */
#pragma once

/* Moves the library's code into huge pages that forked workers share.  Costs some 20 MiB and tens of
 * milliseconds once, and saves each worker its page faults.  Does nothing where the kernel gives no
 * huge pages. */
void engine_make_resident(void);

/* Takes, in a worker that waits for its launch, the page faults of what every launch writes to: data
 * segments, heap, some of the stack.  (Code is left alone: mapping more of it than is used costs
 * more when the worker ends than it saves.) */
void engine_prefault(void);
