/* SPDX-License-Identifier: Apache-2.0 */
/* libaglhttp: a very small HTTP/1.0 server and client for the loopback interface. */
#ifndef AGLHTTP_H
#define AGLHTTP_H

#include <signal.h>
#include <stdio.h>

/* Version of the library, as "1.0.0". */
const char *aglhttp_version(void);

/* Listen on 127.0.0.1:*port, and nowhere else; *port == 0 takes a free one and stores it.
 * Returns a file descriptor, or -1 with errno set. */
int aglhttp_listen(unsigned short *port);

/* Answer GET and HEAD requests with the regular files below the directory root_fd, one request
 * after the other, until *stop is set by the handler of a signal that the caller has blocked;
 * wait_mask is the signal mask to wait with, in which that signal is not blocked.
 * Returns 0, or -1 with errno set. */
int aglhttp_serve(int listen_fd, int root_fd, const sigset_t *wait_mask,
                  const volatile sig_atomic_t *stop);

/* Fetch http://127.0.0.1:port/path and write its body to out.
 * Returns the HTTP status, or -1 with errno set. */
int aglhttp_fetch(unsigned short port, const char *path, FILE *out);

#endif
