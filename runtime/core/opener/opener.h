/* The opener: a process with one caller's rights and no others, which opens, looks at and reads files
 * for the daemon.  What the caller may not touch it cannot touch, and a file system of the caller's
 * that does not answer holds up the opener alone.  */
#pragma once

#include "base/error.h"

/* `argv`: uid, gid, supplementary groups, in decimal.  Returns the process's exit status: 0 when the
 * daemon has closed its end of `socket`, 1 when the caller's rights cannot be taken (hello says why),
 * -1 when the arguments are none. */
int opener_main(int socket, int argc, char **argv);

/* --- within the folder --- */

/* Admits the system calls of opener_serve and no others.  A kernel without seccomp is no error: the
 * caller's rights are what bounds the opener. */
int opener_filter(struct ws_error *e);

/* Answers requests until the daemon closes its end; the exit status. */
int opener_serve(int socket);
