/* SPDX-License-Identifier: Apache-2.0
 *
 * red-wrap, the compiled half: it carries out a launch plan that the Python half (redwrap/encode.py)
 * wrote. Warm, it finds the plan of an earlier launch, proves that nothing has changed since, and
 * becomes bwrap; in every doubt it becomes red-wrap-cold, which makes a new plan and hands it back.
 */
#ifndef REDPAK_LAUNCHER_H
#define REDPAK_LAUNCHER_H

#include <stdbool.h>
#include <stddef.h>
#include <sys/types.h>

enum { FAILED = 125, NOT_EXECUTABLE = 126, NOT_FOUND = 127 };

/* What a line of a plan is; in the order of the table in plan.c. */
enum verb {
    /* conditions, in kept plans only */
    KEY, SAY, SET, UNSET, HOSTNAME, STAMP, ABSENT, MISSING, NO_LINK, PRESENT, LOOKED, WRITABLE,
    NO_TOOL, UNTIL,
    /* what is done */
    BWRAP, NAMES, COMMAND, VARIABLE, WORDS, UMASK, CONTENT, NAMESPACE, JOIN, NEW_TIME, WRITE, RUN_AS,
    SEARCH, DIRECTORY, BASE, RUNNING,
    /* what is mounted, in the order of making; the first field is the target, the second says where
     * it was asked for */
    BIND, OVERLAY, SYMLINK, TMPFS, DEV, OUTPUT, HANDED, LEFT,
    VERBS
};

struct record {
    enum verb verb;
    int count;    /* of fields */
    char **field; /* after the verb */
};

/* A command of the configuration, and while it runs its process and output. */
struct command {
    const struct record *record; /* where, uid, gid, text */
    const struct record *names;
    pid_t pid;
    int output;
};

struct plan {
    struct record *records;
    size_t count;
    struct command *commands;
    size_t command_count;
};

/* launcher.c */
_Noreturn void fail(int status, const char *format, ...) __attribute__((format(printf, 2, 3)));
void *allocate(size_t size);
int read_all(int fd, char **text, size_t *length);
bool read_line(const char *path, char *line, size_t size);

/* plan.c: false for what is no plan */
bool parse_plan(struct plan *plan, char *text, size_t length);
const struct record *find_record(const struct plan *plan, enum verb verb);
bool is_mount(const struct record *record);
bool is_below(const char *path, const char *directory);

/* check.c: whether everything is as it was when the plan was made */
bool plan_holds(const struct plan *plan, const char *key);
void say_warnings(const struct plan *plan);

/* lookup.c */
bool find_on_host(const struct plan *plan, const char *path, char *host);
void find_command(const struct plan *plan, const char *command);

/* commands.c */
void start_commands(struct plan *plan);
void wait_for_commands(const struct plan *plan);
pid_t start_signal_tool(const struct plan *plan, const char *command);
bool signal_tool_works(pid_t pid);

/* mounts.c */
bool has_mount_calls(void);
bool in_user_namespace(void);
bool sources_open(const struct plan *plan);
int make_namespace_and_mounts(const struct plan *plan);
void mount_outputs(const struct plan *plan);
void restore_limit(void);

/* process.c: what red-wrap changes in its own process, and the descriptors that bwrap gets */
void join_namespaces(const struct plan *plan);
void become_application(const struct plan *plan);
_Noreturn void become_bwrap(const struct plan *plan, char **command, int mark, bool with_tool);

extern const char SIGNAL_TOOL[];

#endif
