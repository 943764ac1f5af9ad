/* SPDX-License-Identifier: Apache-2.0
 *
 * red-wrap [OPTION...] [--] COMMAND [ARG...], the warm path; and with --execute=FD, the end of the
 * cold path: FD holds the plan that the Python half has just made.
 */
#include "launcher.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { MOST_PLAN = 64 << 20 }; /* bytes */
enum { CLOSE_ON_EXEC = 4 };    /* CLOSE_RANGE_CLOEXEC, Linux 5.11 */

extern char **environ;

static char self[PATH_MAX]; /* this program */

_Noreturn void fail(int status, const char *format, ...)
{
    va_list arguments;
    char text[8192];

    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    dprintf(STDERR_FILENO, "red-wrap: error: %s\n", text);
    exit(status);
}

void *allocate(size_t size)
{
    void *memory = calloc(1, size + 1);

    if (memory == NULL)
        fail(FAILED, "no memory is left");
    return memory;
}

/* All of a regular file from where it stands, with a NUL behind it. */
int read_all(int fd, char **text, size_t *length)
{
    struct stat status;
    ssize_t count;

    if (fstat(fd, &status) < 0 || status.st_size > MOST_PLAN)
        return -1;
    *text = allocate((size_t)status.st_size);
    for (*length = 0; *length < (size_t)status.st_size; *length += (size_t)count) {
        count = read(fd, *text + *length, (size_t)status.st_size - *length);
        if (count <= 0)
            break;
    }
    return 0;
}

/* The first line of a short file, without its end. */
bool read_line(const char *path, char *line, size_t size)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t length = fd < 0 ? -1 : read(fd, line, size - 1);

    if (fd >= 0)
        close(fd);
    if (length < 0)
        return false;
    line[length] = '\0';
    line[strcspn(line, "\n")] = '\0';
    return true;
}

/* ld.so(8): what steers the dynamic linker or makes libc load code, bwrap's included, never crosses
 * (redpak.load.LINKER_VARIABLES). */
static void clean_environment(void)
{
    static const char *const NAMES[] = {"LD_",     "GLIBC_TUNABLES=", "GCONV_PATH=",
                                        "LOCPATH=", "NLSPATH=",        "MALLOC_"};
    char **kept = environ;

    for (char **variable = environ; *variable != NULL; variable++) {
        bool hostile = false;
        for (size_t at = 0; at < sizeof NAMES / sizeof *NAMES; at++)
            hostile |= strncmp(*variable, NAMES[at], strlen(NAMES[at])) == 0;
        if (!hostile)
            *kept++ = *variable;
    }
    *kept = NULL;
}

/* The caller may have closed some of these: what is opened next would get their numbers. */
static void open_standard_descriptors(void)
{
    int fd;

    do {
        fd = open("/dev/null", O_RDWR);
    } while (fd >= 0 && fd <= STDERR_FILENO);
    if (fd >= 0)
        close(fd);
}

/* A descriptor that the caller left open would be a way out of the namespace. Before Linux 5.11 each
 * is asked for: it may have a number above today's limit. */
static void close_on_exec(void)
{
    if (syscall(SYS_close_range, 3U, ~0U, CLOSE_ON_EXEC) == 0)
        return;
    DIR *open_now = opendir("/proc/self/fd");
    if (open_now == NULL)
        fail(FAILED, "/proc/self/fd: %s; mount /proc", strerror(errno));
    for (struct dirent *entry; (entry = readdir(open_now)) != NULL;) {
        int fd = (int)strtol(entry->d_name, NULL, 10);
        if (fd > STDERR_FILENO)
            (void)fcntl(fd, F_SETFD, FD_CLOEXEC);
    }
    closedir(open_now);
}

/* What a warm launch must know of the command line. */
struct request {
    const char *path, *main, *bwrap;
    bool quiet;
    char **command;
};

/* The value of an option that stands at `*word`, which moves to the option's last word. */
static const char *option_value(const char *const *names, char ***word)
{
    for (; *names != NULL; names++) {
        size_t length = strlen(*names);
        if (strncmp(**word, *names, length) != 0)
            continue;
        if ((**word)[length] == '=')
            return **word + length + 1;
        if ((**word)[length] == '\0' && (*word)[1] != NULL)
            return *++*word;
    }
    return NULL;
}

/* Whether a path means the same in every directory of the caller: a key does not have that. */
static bool is_same_everywhere(const char *path)
{
    return path == NULL || *path == '\0' || *path == '/';
}

static bool parse_request(char **argv, struct request *request)
{
    static const char *const PATHS[] = {"--redpath", "--rpath", "--rp", NULL};
    static const char *const MAIN[] = {"--rmain", NULL}, *const BWRAP_PATH[] = {"--bwrap", NULL};
    const char *value;
    char **word = argv + 1;

    *request = (struct request){getenv("REDPATH"), getenv("redpak_MAIN"), NULL, false, NULL};
    for (; *word != NULL && **word == '-' && (*word)[1] != '\0'; word++) {
        if (strcmp(*word, "--") == 0) {
            word++;
            break;
        }
        if ((value = option_value(PATHS, &word)) != NULL)
            request->path = value;
        else if ((value = option_value(MAIN, &word)) != NULL)
            request->main = value;
        else if ((value = option_value(BWRAP_PATH, &word)) != NULL)
            request->bwrap = value;
        else if (strcmp(*word, "--quiet") == 0 || strcmp(*word, "-q") == 0)
            request->quiet = true;
        else
            return false;
    }
    request->command = word;
    return *word != NULL && request->path != NULL && *request->path == '/' &&
           is_same_everywhere(request->main) && is_same_everywhere(request->bwrap);
}

/* Who asks, with which options: a plan is for one key. */
static char *make_key(const struct request *request)
{
    const char *search = getenv("PATH");
    char line[128], *key;

    if (!read_line("/proc/self/uid_map", line, sizeof line) ||
        asprintf(&key, "%s|%s|%s|%s%s|%u:%u|%s|%d", self, request->path,
                 request->main == NULL ? "" : request->main, request->bwrap == NULL ? "PATH=" : "",
                 request->bwrap != NULL ? request->bwrap : search == NULL ? "" : search,
                 geteuid(), getegid(), line, has_mount_calls()) < 0)
        return NULL;
    return key;
}

static bool is_ours_alone(int fd, mode_t kind)
{
    struct stat status;

    return fstat(fd, &status) == 0 && status.st_uid == geteuid() &&
           (status.st_mode & S_IFMT) == kind && (status.st_mode & (S_IWGRP | S_IWOTH)) == 0;
}

/* Only a file that the caller owns, in a directory that the caller owns, is read; the checks are
 * made on what is open, which nobody can exchange. */
static bool load_plan(struct plan *plan, const char *format, const char *prefix, const char *path)
{
    char place[PATH_MAX], *text;
    size_t length;
    bool loaded = false;

    if (prefix == NULL || *prefix != '/' ||
        snprintf(place, sizeof place, format, prefix, path) >= PATH_MAX)
        return false;
    int directory = open(place, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (directory < 0)
        return false;
    int fd = openat(directory, "launch", O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    if (fd >= 0 && is_ours_alone(directory, S_IFDIR) && is_ours_alone(fd, S_IFREG) &&
        read_all(fd, &text, &length) == 0)
        loaded = parse_plan(plan, text, length);
    if (fd >= 0)
        close(fd);
    close(directory);
    return loaded;
}

/* The node's when the caller owns the node, else the one in the caller's cache. */
static bool find_plan(struct plan *plan, const char *path)
{
    const char *cache = getenv("XDG_CACHE_HOME");

    if (load_plan(plan, "%s%s/.redpak", path, ""))
        return true;
    if (cache != NULL && *cache == '/')
        return load_plan(plan, "%s/redpak%s", cache, path);
    return load_plan(plan, "%s/.cache/redpak%s", getenv("HOME"), path);
}

/* Hold the node for reading until bwrap starts, so that no commit is half done. Root launches its
 * own nodes only: the cold path becomes the owner of another's. */
static bool lock_node(const char *path)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    struct stat status;

    return fd >= 0 && fstat(fd, &status) == 0 && (geteuid() != 0 || status.st_uid == 0) &&
           flock(fd, LOCK_SH | LOCK_NB) == 0;
}

/* Carry out a plan; everything that it depends on has been checked. */
static _Noreturn void launch(struct plan *plan, char **command)
{
    int mark = -1;

    find_command(plan, *command);
    close_on_exec();
    start_commands(plan);
    pid_t tool = start_signal_tool(plan, *command);
    join_namespaces(plan);
    bool mounted = find_record(plan, BASE) != NULL;
    if (mounted) /* while the commands run */
        mark = make_namespace_and_mounts(plan);
    wait_for_commands(plan);
    if (mounted)
        mount_outputs(plan);
    bool with_tool = signal_tool_works(tool);
    become_application(plan);
    become_bwrap(plan, command, mark, with_tool);
}

/* The end of a cold launch. */
static _Noreturn void execute(const char *number, char **command)
{
    struct plan plan;
    char *text;
    size_t length;
    int fd = (int)strtol(number, NULL, 10);

    if (*command == NULL || read_all(fd, &text, &length) < 0 || !parse_plan(&plan, text, length))
        fail(FAILED, "descriptor %s holds no launch plan; this option is for red-wrap-cold", number);
    close(fd);
    launch(&plan, command);
}

static bool is_ignored(int number)
{
    struct sigaction action;

    return sigaction(number, NULL, &action) == 0 && action.sa_handler == SIG_IGN;
}

/* Become the Python half, which does everything. Installed it lies beside this program; in a
 * checkout, with the modules above. */
static _Noreturn void become_cold(char **argv, const char *key)
{
    static char cold[PATH_MAX + 32], launcher[PATH_MAX + 32], *warm;
    char *python[] = {"/usr/bin/python3", "-I", cold, NULL};
    char *slash = strrchr(self, '/'), **start = python + 2;
    int count = 0, words = 0;

    snprintf(cold, sizeof cold, "%.*s/red-wrap-cold", (int)(slash - self), self);
    if (access(cold, X_OK) < 0) {
        snprintf(cold, sizeof cold, "%.*s/../__main__.py", (int)(slash - self), self);
        if (access(cold, R_OK) < 0)
            fail(FAILED, "%.*s has no red-wrap-cold; install redpak again", (int)(slash - self),
                 self);
        start = python;
    }
    while (argv[words] != NULL)
        words++;
    char **all = allocate((size_t)(words + 10) * sizeof *all);
    for (; *start != NULL; start++)
        all[count++] = *start;
    snprintf(launcher, sizeof launcher, "--launcher=%s", self);
    all[count++] = launcher;
    if (key != NULL && asprintf(&warm, "--warm=%s", key) >= 0)
        all[count++] = warm;
    if (!has_mount_calls())
        all[count++] = "--old-kernel";
    if (is_ignored(SIGPIPE))
        all[count++] = "--ignores-pipe";
    if (is_ignored(SIGXFSZ))
        all[count++] = "--ignores-xfsz";
    memcpy(all + count, argv + 1, (size_t)words * sizeof *all);
    execv(all[0], all);
    fail(FAILED, "%s: %s; install redpak again", all[0], strerror(errno));
}

int main(int argc, char **argv)
{
    static const char EXECUTE[] = "--execute=";
    ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);
    struct request request;
    struct plan plan;
    char *key = NULL;

    open_standard_descriptors();
    signal(SIGCHLD, SIG_DFL); /* a caller that ignores it would leave us nothing to wait for */
    if (length <= 0 || argc < 1)
        fail(FAILED, "/proc/self/exe cannot be read; mount /proc");
    /* The environment and the command line are the caller's: they must not steer another's rights. */
    if (getuid() != geteuid() || getgid() != getegid())
        fail(FAILED, "%s runs with the rights of another user or group than its caller's; take its "
             "set-user-ID bit away, or that of the program that calls it", self);
    clean_environment();
    if (argc > 1 && strncmp(argv[1], EXECUTE, sizeof EXECUTE - 1) == 0)
        execute(argv[1] + sizeof EXECUTE - 1, argv + 2);
    if (parse_request(argv, &request) && (key = make_key(&request)) != NULL &&
        lock_node(request.path) && find_plan(&plan, request.path) && plan_holds(&plan, key) &&
        sources_open(&plan)) {
        if (!request.quiet)
            say_warnings(&plan);
        launch(&plan, request.command);
    }
    become_cold(argv, key);
}
