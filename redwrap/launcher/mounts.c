/* SPDX-License-Identifier: Apache-2.0
 *
 * The mounts of a plan, made with the calls of Linux 5.12 (open_tree, mount_setattr, move_mount) in
 * a mount namespace of our own (and a user namespace without root), below one directory that bwrap
 * then binds to its root. bwrap before 0.11 reads the whole mount table after each bind, so its cost
 * grows with the square of the mounts; these calls need no table. Each source is opened once,
 * without following links below the node it belongs to, and mounted from that descriptor: nobody can
 * exchange it in between.
 */
#include "launcher.h"
#include "mounts.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

/* What bwrap's --dev has. */
static const char *const DEVICES[] = {"null", "zero", "full", "random", "urandom", "tty"};
enum { DEVICE_COUNT = sizeof DEVICES / sizeof *DEVICES };
static const char *const DEVICE_LINKS[][2] = {
    {"stdin", "/proc/self/fd/0"}, {"stdout", "/proc/self/fd/1"}, {"stderr", "/proc/self/fd/2"},
    {"fd", "/proc/self/fd"},      {"core", "/proc/kcore"},       {"ptmx", "pts/ptmx"},
};

/* The tree that is being made; `top` is a tmpfs. Mounts are made parents first, so the descriptor of
 * a directory stays good. */
static struct {
    int top;
    struct {
        char *path;
        int fd;
    } *directories;
    size_t count, room;
    int devices[DEVICE_COUNT];
} tree;

/* The `mode` of a mkdir is what a mount point below a writable bind gets; umask is 0 meanwhile. */
static int open_point(const char *target, bool is_directory);

static int open_directory(const char *path)
{
    for (size_t at = 0; at < tree.count; at++) {
        if (strcmp(tree.directories[at].path, path) == 0)
            return tree.directories[at].fd;
    }
    int fd = *path == '\0' ? tree.top : open_point(path, true);
    if (fd < 0)
        return -1;
    if (tree.count == tree.room) {
        tree.room = tree.room * 2 + 16;
        tree.directories = realloc(tree.directories, tree.room * sizeof *tree.directories);
        if (tree.directories == NULL)
            return -1;
    }
    tree.directories[tree.count].path = strdup(path);
    tree.directories[tree.count++].fd = fd;
    return fd;
}

/* Split "/a/b" into the descriptor of /a and "b". */
static int open_parent(const char *target, const char **name)
{
    char parent[PATH_MAX];
    const char *slash = strrchr(target, '/');

    *name = slash + 1;
    snprintf(parent, sizeof parent, "%.*s", (int)(slash - target), target);
    return open_directory(parent);
}

/* The mount point `target`, made when it is missing; links are followed below the top only. */
static int open_point(const char *target, bool is_directory)
{
    const char *name;

    int above = open_parent(target, &name);
    if (above < 0)
        return -1;
    if (make_entry(above, name, is_directory) == 0)
        return openat(above, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);
    /* A read-only file system says so even for what is there. */
    if (errno != EEXIST && errno != EROFS)
        return -1;
    int reason = errno, fd = open_in(tree.top, target + 1, O_PATH, IN_ROOT);
    if (fd < 0 && errno == ENOENT)
        errno = reason;
    return fd;
}

int make_entry(int above, const char *name, bool is_directory)
{
    if (is_directory)
        return mkdirat(above, name, 0755);
    int fd = openat(above, name, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0644);
    return fd < 0 ? -1 : close(fd);
}

/* Mount a copy of the tree at descriptor `source` on `point`, with `attributes` throughout. */
static int attach(int source, int point, unsigned long long attributes)
{
    int copy = copy_tree(source);

    if (copy < 0)
        return -1;
    int done = set_attributes(copy, attributes) < 0 ? -1 : move_tree(copy, point);
    int reason = errno;
    close(copy);
    errno = reason;
    return done;
}

static int mount_at(int point, const char *kind, unsigned long flags, const char *options)
{
    char path[40];

    snprintf(path, sizeof path, "/proc/self/fd/%d", point);
    return mount(kind, path, kind, flags, options);
}

static int make_bind(const struct record *record, const struct source *source)
{
    int point = open_point(record->field[0], is_directory(source->fd[0]));
    bool writable = strcmp(record->field[2], "rw") == 0;

    if (point < 0 || attach(source->fd[0], point, NO_SUID | NO_DEVICES |
                            (writable ? 0 : READ_ONLY)) < 0)
        return -1;
    return close(point);
}

static int make_tmpfs(const char *target)
{
    int point = open_point(target, true);

    if (point < 0 || mount_at(point, "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755") < 0)
        return -1;
    return close(point);
}

static int make_symlink(const char *target, const char *text)
{
    char found[PATH_MAX];
    const char *name;
    int above = open_parent(target, &name);

    if (above < 0 || symlinkat(text, above, name) == 0)
        return above < 0 ? -1 : 0;
    int reason = errno;
    ssize_t length = readlinkat(above, name, found, sizeof found);
    if (length == (ssize_t)strlen(text) && memcmp(found, text, (size_t)length) == 0)
        return 0;
    errno = reason;
    return -1;
}

/* As bwrap's --dev. */
static int make_dev(const char *target)
{
    char path[PATH_MAX];

    if (make_tmpfs(target) < 0)
        return -1;
    for (size_t at = 0; at < DEVICE_COUNT; at++) {
        snprintf(path, sizeof path, "%s/%s", target, DEVICES[at]);
        int point = open_point(path, false);
        if (point < 0 || attach(tree.devices[at], point, NO_SUID) < 0)
            return -1;
        close(point);
    }
    int here = open_directory(target);
    for (size_t at = 0; at < sizeof DEVICE_LINKS / sizeof *DEVICE_LINKS; at++) {
        if (symlinkat(DEVICE_LINKS[at][1], here, DEVICE_LINKS[at][0]) < 0)
            return -1;
    }
    snprintf(path, sizeof path, "%s/pts", target);
    int point = open_point(path, true);
    if (mkdirat(here, "shm", 0755) < 0 || point < 0)
        return -1;
    return mount_at(point, "devpts", MS_NOSUID | MS_NOEXEC, "newinstance,ptmxmode=0666,mode=620") |
           close(point);
}

/* A read-only file with what descriptor `from` has. */
static int make_file(const char *target, int from)
{
    static const char NAME[] = ".red-wrap";
    char block[65536];
    ssize_t length = -1;
    int point = open_point(target, false);
    int fd = openat(tree.top, NAME, O_CREAT | O_EXCL | O_RDWR | O_CLOEXEC, 0444);

    if (point < 0 || fd < 0)
        return -1;
    while ((length = read(from, block, sizeof block)) > 0) {
        if (write(fd, block, (size_t)length) != length)
            return -1;
    }
    if (length < 0 || attach(fd, point, NO_SUID | NO_DEVICES | READ_ONLY) < 0 ||
        unlinkat(tree.top, NAME, 0) < 0) /* what has no name cannot be mounted */
        return -1;
    return close(fd) | close(point);
}

bool in_user_namespace(void)
{
    unsigned inside, outside, count;
    char line[80];

    return !read_line("/proc/self/uid_map", line, sizeof line) ||
           sscanf(line, "%u %u %u", &inside, &outside, &count) != 3 || inside != 0 ||
           outside != 0 || count != 4294967295U;
}

static int make_overlay(const struct record *record, const struct source *source)
{
    bool writable = strcmp(record->field[2], "rw") == 0;
    int point = open_point(record->field[0], true), done;
    /* As in a transaction's view; without the host's privilege the kernel wants userxattr. */
    char options[4096] = "redirect_dir=nofollow,metacopy=off,index=off";
    size_t used = strlen(options);

    if (point < 0)
        return -1;
    if (!writable && source->count == 1) /* overlayfs wants two layers */
        return attach(source->fd[0], point, NO_SUID | NO_DEVICES | READ_ONLY) | close(point);
    if (in_user_namespace())
        used += (size_t)snprintf(options + used, sizeof options - used, ",userxattr");
    for (int at = 0; at < source->count && used < sizeof options; at++) {
        const char *key = !writable || at > 2 ? ":" : at == 0 ? ",upperdir=" : ",workdir=";
        if (at == (writable ? 2 : 0))
            key = ",lowerdir=";
        used += (size_t)snprintf(options + used, sizeof options - used, "%s/proc/self/fd/%d", key,
                                 source->fd[at]);
    }
    if (used >= sizeof options) {
        errno = E2BIG;
        return -1;
    }
    done = mount_at(point, "overlay", MS_NOSUID | MS_NODEV | (writable ? 0 : MS_RDONLY), options);
    return done | close(point);
}

static int make_mount(const struct record *record, const struct source *source)
{
    switch (record->verb) {
    case BIND:
        return make_bind(record, source);
    case OVERLAY:
        return make_overlay(record, source);
    case SYMLINK:
        return make_symlink(record->field[0], record->field[2]);
    case TMPFS:
        return make_tmpfs(record->field[0]);
    case DEV:
        return make_dev(record->field[0]);
    case HANDED:
        return make_file(record->field[0], (int)strtol(record->field[2], NULL, 10));
    case LEFT:
        return open_directory(record->field[0]) < 0 ? -1 : 0;
    default: /* the output of a command comes when the command has ended */
        return 0;
    }
}

_Noreturn void fail_at(const struct record *record)
{
    fail(FAILED, "%s: mount %s: %s; look at red-wrap --explain", record->field[1], record->field[0],
         strerror(errno));
}

/* A mount namespace that nothing leaves; without root, in a user namespace that changes no id. */
static void enter_namespace(void)
{
    uid_t uid = geteuid();
    gid_t gid = getegid();
    char text[48];

    if (unshare(uid == 0 ? CLONE_NEWNS : CLONE_NEWNS | CLONE_NEWUSER) < 0)
        fail(FAILED, "cannot make a namespace: %s; let the kernel allow user namespaces "
             "(user.max_user_namespaces, kernel.unprivileged_userns_clone)", strerror(errno));
    if (uid != 0) {
        write_text("/proc/self/setgroups", "deny");
        snprintf(text, sizeof text, "%u %u 1", uid, uid);
        write_text("/proc/self/uid_map", text);
        snprintf(text, sizeof text, "%u %u 1", gid, gid);
        write_text("/proc/self/gid_map", text);
    }
    if (mount("none", "/", "", MS_REC | MS_SLAVE, NULL) < 0)
        fail(FAILED, "cannot make the mounts private: %s", strerror(errno));
}

/* Each source is a descriptor: more of them than shells usually allow. */
static struct rlimit callers_limit;

static void raise_limit(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) < 0 || limit.rlim_cur == limit.rlim_max)
        return;
    callers_limit = limit;
    limit.rlim_cur = limit.rlim_max;
    setrlimit(RLIMIT_NOFILE, &limit);
}

void restore_limit(void)
{
    if (callers_limit.rlim_max > 0)
        setrlimit(RLIMIT_NOFILE, &callers_limit);
}

/* Make all mounts but the outputs of commands. The result is the descriptor of the mark that bwrap
 * must keep open as long as the application runs, -1 when there is none. */
int make_namespace_and_mounts(const struct plan *plan)
{
    const struct record *base = find_record(plan, BASE), *running = find_record(plan, RUNNING);
    struct source *sources = allocate(plan->count * sizeof *sources);
    char path[32];

    enter_namespace();
    raise_limit();
    int slot = 0, mark = running == NULL ? -1 : take_mark(running, &slot);
    open_steadily(plan, running, slot, sources); /* before `base` is covered: one may lie below */
    for (size_t at = 0; at < DEVICE_COUNT; at++) {
        snprintf(path, sizeof path, "/dev/%s", DEVICES[at]);
        tree.devices[at] = open(path, O_PATH | O_CLOEXEC);
    }
    mode_t mask = umask(0);
    add_points(plan, sources, base->field[0]);
    if (mount("tmpfs", base->field[0], "tmpfs", MS_NOSUID | MS_NODEV, "mode=0755") < 0 ||
        (tree.top = open(base->field[0], O_PATH | O_CLOEXEC)) < 0)
        fail(FAILED, "%s: cannot mount a tmpfs: %s", base->field[0], strerror(errno));
    for (size_t at = 0; at < plan->count; at++) {
        const struct record *record = &plan->records[at];
        if (!is_mount(record))
            continue;
        if (make_mount(record, &sources[at]) < 0)
            fail_at(record);
        close_source(&sources[at]);
    }
    umask(mask);
    return mark;
}

/* The files that commands have written by now. */
void mount_outputs(const struct plan *plan)
{
    mode_t mask = umask(0);

    for (size_t at = 0; at < plan->count; at++) {
        const struct record *record = &plan->records[at];
        if (record->verb != OUTPUT)
            continue;
        int output = plan->commands[strtoul(record->field[2], NULL, 10)].output;
        if (lseek(output, 0, SEEK_SET) < 0 || make_file(record->field[0], output) < 0)
            fail_at(record);
    }
    umask(mask);
}
