/* SPDX-License-Identifier: Apache-2.0
 *
 * What is mounted: the sources, opened without following a link below the node they belong to, and
 * for overlays, of one state of the family.
 */
#include "launcher.h"
#include "mounts.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { STEADY_TRIES = 500, STEADY_PAUSE = 20 * 1000 * 1000 }; /* ns: a commit waits for the disk */

/* Below the state directory of a leaf: the marks of running applications (redrpm/running.py). */
static const char MARKS[] = "running";

/* A descriptor of `path`; no link below `base` is followed ("" trusts every link). */
int open_source(const char *path, const char *base)
{
    if (*base == '\0')
        return open(path, O_PATH | O_CLOEXEC);
    int directory = open(base, O_PATH | O_CLOEXEC);
    if (directory < 0)
        return -1;
    const char *rest = path + strlen(base);
    rest += strspn(rest, "/");
    int fd = open_in(directory, *rest == '\0' ? "." : rest, O_PATH, NO_SYMLINKS), reason = errno;
    close(directory);
    errno = reason;
    return fd;
}

/* The work directory of our own in the one at `*works`, which it replaces: overlayfs empties it when
 * it is mounted, so two applications must not share one. */
static int enter_work(int *works, int slot)
{
    char name[24];

    snprintf(name, sizeof name, "work.%d", slot);
    if (mkdirat(*works, name, 0700) < 0 && errno != EEXIST)
        return -1;
    int work = open_in(*works, name, O_PATH, NO_SYMLINKS);
    close(*works);
    *works = work;
    return work;
}

/* The pairs of path and base begin at field 3. */
static int open_sources(const struct record *record, struct source *source)
{
    *source = (struct source){0};
    if (record->verb != BIND && record->verb != OVERLAY)
        return 0;
    source->fd = allocate((size_t)record->count * sizeof *source->fd); /* room for the points, too */
    for (int at = 3; at + 1 < record->count; at += 2) {
        int fd = open_source(record->field[at], record->field[at + 1]);
        if (fd < 0)
            return -1;
        source->fd[source->count++] = fd;
    }
    return source->count > 0 ? 0 : -1;
}

void close_source(struct source *source)
{
    for (int at = 0; at < source->count; at++)
        close(source->fd[at]);
    free(source->fd);
    *source = (struct source){0};
}

/* Undo what proc(5) writes for a blank and the like in a path: a backslash and three octal digits. */
static void unescape_octal(char *path)
{
    char *to = path;

    for (const char *from = path; *from != '\0'; to++) {
        if (*from == '\\' && strspn(from + 1, "01234567") >= 3) {
            *to = (char)((from[1] - '0') << 6 | (from[2] - '0') << 3 | (from[3] - '0'));
            from += 4;
        } else {
            *to = *from++;
        }
    }
    *to = '\0';
}

static bool is_layer_above(const struct record *record, const char *point)
{
    for (int at = 3; record->verb == OVERLAY && at + 1 < record->count; at += 2) {
        const char *layer = record->field[at];
        if (is_below(point, layer))
            return true;
    }
    return false;
}

/* Whether nothing has been mounted below a layer since: in a user namespace overlayfs refuses that
 * (redwrap/refusals.py goes round it). */
static bool layers_are_clear(const struct plan *plan)
{
    char *line = NULL, *rest, *field = NULL;
    bool clear = true;
    size_t room = 0;

    if (find_record(plan, RUNNING) == NULL || (geteuid() == 0 && !in_user_namespace()))
        return true;
    FILE *mounts = fopen("/proc/self/mountinfo", "re");
    if (mounts == NULL)
        return false;
    while (clear && getline(&line, &room, mounts) > 0) {
        rest = line;
        for (int at = 0; at < 5; at++)
            field = strsep(&rest, " "); /* the fifth is the mount point */
        if (field != NULL)
            unescape_octal(field);
        for (size_t at = 0; field != NULL && at < plan->count; at++)
            clear = clear && !is_layer_above(&plan->records[at], field);
    }
    free(line);
    fclose(mounts);
    return clear;
}

/* Whether every source can be opened: a warm launch that finds otherwise leaves the explanation to
 * the cold one. What is mounted is opened again in the namespace that it is mounted in. */
bool sources_open(const struct plan *plan)
{
    struct source source;

    if (!layers_are_clear(plan))
        return false;
    for (size_t at = 0; at < plan->count; at++) {
        const struct record *record = &plan->records[at];
        if (!is_mount(record))
            continue;
        int opened = open_sources(record, &source);
        close_source(&source);
        /* What we opened ourselves has FD_CLOEXEC: the caller did not hand it over. */
        if (opened < 0 || (record->verb == HANDED &&
                           fcntl((int)strtol(record->field[2], NULL, 10), F_GETFD) != 0))
            return false;
    }
    return true;
}

/* Whether each layer's path still leads to what was opened. */
static bool lead_there(const struct record *record, const struct source *source)
{
    bool writable = strcmp(record->field[2], "rw") == 0;
    struct stat named, opened;

    for (int at = writable ? 2 : 0; record->verb == OVERLAY && at < source->count; at++) {
        if (stat(record->field[3 + 2 * at], &named) < 0 || fstat(source->fd[at], &opened) < 0 ||
            named.st_ino != opened.st_ino || named.st_dev != opened.st_dev)
            return false;
    }
    return true;
}

static bool is_steady(const struct plan *plan, const struct record *running,
                      const struct source *sources)
{
    struct stat status;

    for (int at = 2; at < running->count; at++) {
        if (lstat(running->field[at], &status) == 0)
            return false;
    }
    for (size_t at = 0; at < plan->count; at++) {
        if (sources[at].count > 0 && !lead_there(&plan->records[at], &sources[at]))
            return false;
    }
    return true;
}

/* The sources of all records, of one state of the family.
 *
 * A commit that begins after our mark leaves the directories as they are and puts others in their
 * place: so the sources are good if each path still leads to what was opened, and no commit is on
 * its way. */
void open_steadily(const struct plan *plan, const struct record *running, int slot,
                   struct source *sources)
{
    const struct timespec pause = {0, STEADY_PAUSE};

    for (int turn = 0; turn < STEADY_TRIES; turn++) {
        for (size_t at = 0; at < plan->count; at++) {
            const struct record *record = &plan->records[at];
            sources[at] = (struct source){0};
            if (!is_mount(record))
                continue;
            if (open_sources(record, &sources[at]) < 0)
                fail_at(record);
            if (record->verb == OVERLAY && strcmp(record->field[2], "rw") == 0 &&
                enter_work(&sources[at].fd[1], slot) < 0)
                fail_at(record);
        }
        if (running == NULL || is_steady(plan, running, sources))
            return;
        for (size_t at = 0; at < plan->count; at++)
            close_source(&sources[at]);
        nanosleep(&pause, NULL);
    }
    fail(FAILED, "a transaction on the node or an ancestor is being committed, or was interrupted "
         "(red-manager --recover finishes it)");
}

/* Lock RUNNING/slot; its time is when the application started. */
static int lock_slot(int directory, int slot)
{
    char name[16];

    snprintf(name, sizeof name, "%d", slot);
    int fd = openat(directory, name, O_RDWR | O_CREAT | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (fd < 0)
        return -1;
    if (flock(fd, LOCK_EX | LOCK_NB) < 0 || futimens(fd, NULL) < 0) {
        int reason = errno;
        close(fd);
        errno = reason;
        return -1;
    }
    return fd;
}

/* Open directory `state` as the root of a read-only mount of its own. bwrap keeps the mark open as
 * pid 1 of the application, which can so open it, too (/proc/1/fd): from a mount that has nothing
 * above it no ".." leads on to the host. */
static int open_alone(int state)
{
    int copy = copy_tree(state), fd = -1;

    if (copy >= 0 && set_attributes(copy, READ_ONLY | NO_SUID | NO_DEVICES) == 0)
        fd = openat(copy, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int reason = errno;
    if (copy >= 0)
        close(copy);
    errno = reason;
    return fd;
}

/* The mark that an application runs on the layers of a family: a commit then leaves it the
 * directories it began with. It is a lock on RUNNING/N in the leaf's state directory, N the first
 * that is free; `slot` tells N, which also names the work directories. Who may not write there locks
 * the state directory itself, shared. */
int take_mark(const struct record *record, int *slot)
{
    int state = open_source(record->field[0], record->field[1]), fd = -1;

    *slot = 0;
    if (state < 0 && errno == ENOENT) /* no transaction ever changed this node */
        return -1;
    if (state < 0)
        fail(FAILED, "%s: %s", record->field[0], strerror(errno));
    (void)mkdirat(state, MARKS, 0755);
    int directory = open_in(state, MARKS, O_PATH, NO_SYMLINKS);
    if (directory >= 0) {
        while ((fd = lock_slot(directory, *slot)) < 0 && errno == EWOULDBLOCK)
            ++*slot;
        close(directory);
    }
    if (fd < 0) {
        *slot = 0;
        fd = open_alone(state);
        if (fd < 0 || flock(fd, LOCK_SH) < 0) /* a commit may look at this moment */
            fail(FAILED, "%s: cannot mark that an application runs: %s", record->field[0],
                 strerror(errno));
    }
    close(state);
    return fd;
}

static void make_directories(char *path, size_t from)
{
    for (char *slash = path + from; (slash = strchr(slash, '/')) != NULL; slash++) {
        *slash = '\0';
        (void)mkdir(path, 0755); /* one that fails is told of by what comes after it */
        *slash = '/';
    }
}

/* The innermost earlier mount that record `at` lies in; plan->count when there is none. */
static size_t outer_mount(const struct plan *plan, size_t at)
{
    size_t found = plan->count, longest = 0;

    for (size_t other = 0; other < at; other++) {
        if (!is_mount(&plan->records[other]))
            continue;
        const char *target = plan->records[other].field[0];
        size_t length = strlen(target);
        if (length >= longest && is_below(plan->records[at].field[0], target)) {
            found = other;
            longest = length;
        }
    }
    return found;
}

static int make_point(const struct record *record, const struct source *source, char *path,
                      size_t top)
{
    bool file = record->verb == OUTPUT || record->verb == HANDED ||
                (record->verb == BIND && !is_directory(source->fd[0]));

    make_directories(path, top);
    if (record->verb == SYMLINK)
        return symlink(record->field[2], path);
    int done = make_entry(AT_FDCWD, path, !file);
    return done < 0 && errno == EEXIST ? 0 : done;
}

/* Give each overlay a bottom layer with the mount points that are not in its other layers.
 *
 * It is a directory of a tmpfs that the root then covers. In a layer, a mount point would have to be
 * made in a node, or in what is read-only. */
void add_points(const struct plan *plan, struct source *sources, const char *base)
{
    bool mounted = false;
    char path[PATH_MAX];

    if (find_record(plan, OVERLAY) == NULL)
        return;
    for (size_t at = 0; at < plan->count; at++) {
        const struct record *record = &plan->records[at];
        size_t outer = is_mount(record) ? outer_mount(plan, at) : plan->count;
        if (outer == plan->count || plan->records[outer].verb != OVERLAY)
            continue;
        const char *rest = record->field[0] + strlen(plan->records[outer].field[0]);
        if (!mounted && mount("tmpfs", base, "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755") < 0)
            fail_at(record);
        mounted = true;
        int top = snprintf(path, sizeof path, "%s/%zu", base, outer);
        snprintf(path + top, sizeof path - (size_t)top, "%s", rest);
        if (make_point(record, &sources[at], path, (size_t)top - 1) < 0)
            fail_at(record);
    }
    for (size_t at = 0; mounted && at < plan->count; at++) {
        snprintf(path, sizeof path, "%s/%zu", base, at);
        int fd = sources[at].count > 0 ? open(path, O_PATH | O_CLOEXEC) : -1;
        if (fd >= 0)
            sources[at].fd[sources[at].count++] = fd;
    }
}
