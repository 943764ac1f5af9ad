/* SPDX-License-Identifier: Apache-2.0
 *
 * What the application will see, worked out on the host from the mounts of a plan: so a command that
 * does not exist in the namespace is reported before anything is started.
 */
#include "launcher.h"

#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

enum { MOST_LINKS = 40 }; /* as the kernel: path_resolution(7) */

/* The mount that `path` (without links, "" is the root) lies in. */
static const struct record *mount_of(const struct plan *plan, const char *path)
{
    const struct record *found = NULL;
    size_t longest = 0;

    for (size_t at = 0; at < plan->count; at++) {
        const struct record *record = &plan->records[at];
        if (!is_mount(record))
            continue;
        const char *target = record->field[0];
        size_t length = strlen(target);
        if (length >= longest && (strcmp(path, target) == 0 || is_below(path, target))) {
            found = record;
            longest = length;
        }
    }
    return found;
}

static bool join(char *path, const char *directory, const char *rest)
{
    return snprintf(path, PATH_MAX, "%s%s", directory, rest) < PATH_MAX;
}

/* The file of the host behind `path`, which has no links but perhaps in its last part. */
static bool host_of(const struct plan *plan, const char *path, char *host)
{
    const struct record *mount = mount_of(plan, path);
    struct stat status;

    if (mount == NULL)
        return false;
    const char *rest = path + strlen(mount->field[0]);
    if (mount->verb == BIND)
        return join(host, mount->field[3], rest);
    /* The topmost layer that has it; a device 0:0 says that those below do not count. */
    bool writes = mount->verb == OVERLAY && strcmp(mount->field[2], "rw") == 0;
    for (int at = 3; mount->verb == OVERLAY && at < mount->count; at += 2) {
        if ((writes && at == 5) || !join(host, mount->field[at], rest))
            continue;
        if (lstat(host, &status) == 0)
            return !(S_ISCHR(status.st_mode) && status.st_rdev == makedev(0, 0));
        if (errno == ENOTDIR) /* what is no directory hides all that lies beneath */
            return false;
    }
    return false;
}

/* Where the link at `path` of the namespace leads, if it is one. */
static bool read_link(const struct plan *plan, const char *path, char *target)
{
    const struct record *mount = mount_of(plan, path);
    char host[PATH_MAX];

    if (mount != NULL && strcmp(mount->field[0], path) == 0) {
        if (mount->verb == SYMLINK)
            return join(target, mount->field[2], "");
        return false; /* a link that is a source was followed when it was mounted */
    }
    if (!host_of(plan, path, host))
        return false;
    ssize_t length = readlink(host, target, PATH_MAX - 1);
    if (length < 0)
        return false;
    target[length] = '\0';
    return true;
}

/* The file of the host behind absolute `path`, every link followed as the namespace has it; false
 * where the namespace has nothing, or nothing that the host has too. */
bool find_on_host(const struct plan *plan, const char *path, char *host)
{
    char inside[PATH_MAX] = "", rest[PATH_MAX], link[PATH_MAX], longer[PATH_MAX];
    int links = 0;

    if (!join(rest, path, ""))
        return false;
    for (char *part = rest; *part != '\0';) {
        size_t length = strcspn(part, "/"), had = strlen(inside);
        if (length == 2 && strncmp(part, "..", 2) == 0) {
            char *slash = strrchr(inside, '/');
            if (slash != NULL)
                *slash = '\0';
        } else if (length > 0 && !(length == 1 && *part == '.')) {
            if (had + length + 2 > PATH_MAX)
                return false;
            snprintf(inside + had, PATH_MAX - had, "/%.*s", (int)length, part);
        }
        part += length + (part[length] == '/');
        if (strlen(inside) > had && read_link(plan, inside, link)) {
            if (++links > MOST_LINKS ||
                snprintf(longer, sizeof longer, "%s/%s", link, part) >= PATH_MAX)
                return false;
            inside[*link == '/' ? 0 : had] = '\0';
            part = strcpy(rest, longer);
        }
    }
    return host_of(plan, inside, host);
}

enum found { FOUND, DENIED, NOWHERE };

static enum found try_command(const struct plan *plan, const char *path)
{
    char host[PATH_MAX];
    struct stat status;

    if (!find_on_host(plan, path, host) || lstat(host, &status) < 0)
        return NOWHERE;
    if (stat(host, &status) < 0 || !S_ISREG(status.st_mode) || access(host, X_OK) < 0)
        return DENIED;
    return FOUND;
}

/* Exit with 127 or 126 unless `command` can be executed in the namespace. */
void find_command(const struct plan *plan, const char *command)
{
    const struct record *search = find_record(plan, SEARCH), *start = find_record(plan, DIRECTORY);
    char directory[PATH_MAX] = "/", path[PATH_MAX], denied[PATH_MAX] = "";
    bool has_slash = strchr(command, '/') != NULL;
    if (*command == '\0')
        fail(NOT_FOUND, "the command is an empty word; write red-wrap --redpath=DIR -- COMMAND");
    const char *entry = has_slash || search == NULL ? "" : search->field[0];

    if (start != NULL)
        join(directory, start->field[0], "");
    else if (getcwd(directory, sizeof directory) == NULL)
        join(directory, "/", "");
    for (;; entry++) {
        int length = (int)strcspn(entry, ":");
        int size = *command == '/' ? snprintf(path, sizeof path, "%s", command)
                   : length == 0
                       ? snprintf(path, sizeof path, "%s/%s", directory, command)
                       : snprintf(path, sizeof path, "%.*s/%s", length, entry, command);
        enum found found = size < PATH_MAX ? try_command(plan, path) : NOWHERE;
        if (found == FOUND)
            return;
        if (found == DENIED && *denied == '\0')
            strcpy(denied, path);
        entry += length;
        if (*entry == '\0')
            break;
    }
    if (*denied != '\0')
        fail(NOT_EXECUTABLE, "%s: cannot be executed in the namespace; check that it is a file with "
             "execute permission", denied);
    if (has_slash || search == NULL)
        fail(NOT_FOUND, "%s: no such command in the namespace; install the package that has it, or "
             "look at red-wrap --explain", command);
    fail(NOT_FOUND, "%s: no such command in the namespace (PATH=%s); install the package that has "
         "it, or look at red-wrap --explain", command, search->field[0]);
}
