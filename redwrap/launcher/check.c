/* SPDX-License-Identifier: Apache-2.0
 *
 * Is everything as it was when the plan was made? redwrap/compiled.py says what a plan depends on.
 */
#include "launcher.h"

#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

/* The same file in the same state, and if it is a link, to the same place. */
static bool is_unchanged(const struct record *record)
{
    const char *path = record->field[1], *target = record->field[2];
    struct stat status;
    char found[200], link[PATH_MAX];
    ssize_t length;

    if (lstat(path, &status) < 0)
        return false;
    snprintf(found, sizeof found, "%llu:%llu:%lld:%lld.%09ld:%lld.%09ld",
             (unsigned long long)status.st_dev, (unsigned long long)status.st_ino,
             (long long)status.st_size, (long long)status.st_mtim.tv_sec, status.st_mtim.tv_nsec,
             (long long)status.st_ctim.tv_sec, status.st_ctim.tv_nsec);
    if (strcmp(found, record->field[0]) != 0)
        return false;
    if (!S_ISLNK(status.st_mode))
        return true;
    length = readlink(path, link, sizeof link);
    return length >= 0 && (size_t)length == strlen(target) &&
           memcmp(link, target, (size_t)length) == 0;
}

static bool has_value(const char *name, const char *value)
{
    const char *found = getenv(name);

    return found != NULL && strcmp(found, value) == 0;
}

static bool first_line_is(const char *path, const char *text)
{
    char line[PATH_MAX];

    return read_line(path, line, sizeof line) && strcmp(line, text) == 0;
}

static bool is_link(const char *path)
{
    struct stat status;

    return lstat(path, &status) == 0 && S_ISLNK(status.st_mode);
}

static bool is_there(const char *path, bool file_only)
{
    struct stat status;

    return stat(path, &status) == 0 && !(file_only && S_ISDIR(status.st_mode));
}

/* As redwrap.layers.Found has it. */
static const char *look(const char *path)
{
    struct stat status;

    if (lstat(path, &status) < 0)
        return "nothing";
    return S_ISDIR(status.st_mode) ? "directory" : "other";
}

static bool holds(const struct record *record, const char *key)
{
    char **field = record->field;
    struct stat status;

    switch (record->verb) {
    case KEY:
        return strcmp(field[0], key) == 0;
    case SET:
        return has_value(field[0], field[1]);
    case UNSET:
        return getenv(field[0]) == NULL;
    case HOSTNAME:
        return first_line_is("/proc/sys/kernel/hostname", field[0]);
    case STAMP:
        return is_unchanged(record);
    case ABSENT:
        return lstat(field[0], &status) < 0;
    case MISSING:
        return stat(field[0], &status) < 0;
    case NO_LINK:
        return !is_link(field[0]);
    case PRESENT:
        return is_there(field[0], strcmp(field[1], "file") == 0);
    case LOOKED:
        return strcmp(look(field[0]), field[1]) == 0;
    case WRITABLE:
        return (access(field[0], W_OK | X_OK) == 0) == (strcmp(field[1], "yes") == 0);
    case NO_TOOL:
        return access(field[0], X_OK) < 0;
    case UNTIL:
        return time(NULL) <= strtoll(field[0], NULL, 10);
    default:
        return true;
    }
}

bool plan_holds(const struct plan *plan, const char *key)
{
    if (find_record(plan, KEY) == NULL)
        return false;
    for (size_t at = 0; at < plan->count; at++) {
        if (!holds(&plan->records[at], key))
            return false;
    }
    return true;
}

/* What the merge said when the plan was made is said at each launch. */
void say_warnings(const struct plan *plan)
{
    for (size_t at = 0; at < plan->count; at++) {
        if (plan->records[at].verb == SAY)
            dprintf(STDERR_FILENO, "red-wrap: %s\n", plan->records[at].field[0]);
    }
}
