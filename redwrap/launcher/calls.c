/* SPDX-License-Identifier: Apache-2.0
 *
 * System calls that libc has only of late: openat2 (Linux 5.6), open_tree and move_mount (5.2),
 * mount_setattr (5.12).
 */
#include "launcher.h"
#include "mounts.h"

#include <errno.h>
#include <fcntl.h>
#include <stdint.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

/* asm-generic/unistd.h: the same numbers on every architecture (but alpha) */
enum { OPEN_TREE = 428, MOVE_MOUNT = 429, OPENAT2 = 437, MOUNT_SETATTR = 442 };
enum { TREE_CLONE = 1, FROM_EMPTY = 0x04, TO_EMPTY = 0x40, RECURSIVE = 0x8000 }; /* linux/mount.h */

int open_in(int directory, const char *path, int flags, enum resolve resolve)
{
    uint64_t how[3] = {(unsigned)(flags | O_CLOEXEC), 0, resolve};

    return (int)syscall(OPENAT2, directory, path, how, sizeof how);
}

int copy_tree(int source)
{
    return (int)syscall(OPEN_TREE, source, "",
                        TREE_CLONE | O_CLOEXEC | AT_EMPTY_PATH | RECURSIVE);
}

/* It is private, too: what the host mounts below its source later would come without them. */
int set_attributes(int tree, unsigned long long attributes)
{
    uint64_t values[4] = {attributes, 0, MS_PRIVATE, 0}; /* struct mount_attr: set, clear, propagation */

    return (int)syscall(MOUNT_SETATTR, tree, "", AT_EMPTY_PATH | RECURSIVE, values, sizeof values);
}

int move_tree(int tree, int point)
{
    return (int)syscall(MOVE_MOUNT, tree, "", point, "", FROM_EMPTY | TO_EMPTY);
}

/* Whether this kernel has them all: the youngest is asked for nothing. */
bool has_mount_calls(void)
{
    return syscall(MOUNT_SETATTR, -1, "", 0, NULL, 0) == 0 || errno != ENOSYS;
}

bool is_directory(int fd)
{
    struct stat status;

    return fstat(fd, &status) == 0 && S_ISDIR(status.st_mode);
}

void write_text(const char *path, const char *text)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);

    if (fd < 0 || write(fd, text, strlen(text)) < 0)
        fail(FAILED, "cannot write %s to %s: %s", text, path, strerror(errno));
    close(fd);
}
