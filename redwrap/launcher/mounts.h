/* SPDX-License-Identifier: Apache-2.0
 *
 * Between mounts.c, which makes the mounts, sources.c, which opens what is mounted, and calls.c, the
 * system calls that libc has only of late.
 */
#ifndef REDPAK_MOUNTS_H
#define REDPAK_MOUNTS_H

#include <stdbool.h>
#include <stddef.h>

struct plan;
struct record;

/* The opened sources of one record: one of a bind; of an overlay, for "rw" the upper and the work
 * directory, then the layers, topmost first. */
struct source {
    int *fd;
    int count;
};

/* calls.c */
enum resolve { NO_SYMLINKS = 0x04, IN_ROOT = 0x10 };               /* linux/openat2.h */
enum attribute { READ_ONLY = 1, NO_SUID = 2, NO_DEVICES = 4 };     /* linux/mount.h */
int open_in(int directory, const char *path, int flags, enum resolve resolve);
int copy_tree(int source);
int set_attributes(int tree, unsigned long long attributes);
int move_tree(int tree, int point);
bool is_directory(int fd);
void write_text(const char *path, const char *text);

/* sources.c */
int open_source(const char *path, const char *base);
void open_steadily(const struct plan *plan, const struct record *running, int slot,
                   struct source *sources);
void close_source(struct source *source);
int take_mark(const struct record *record, int *slot);
void add_points(const struct plan *plan, struct source *sources, const char *base);

/* mounts.c */
int make_entry(int above, const char *name, bool is_directory);
_Noreturn void fail_at(const struct record *record);

#endif
