/* SPDX-License-Identifier: Apache-2.0
 *
 * The shell commands of a configuration (Execfd), all at once. This is the one place where redpak
 * runs a shell: the text is handed over as it stands, and the names it may use reach it as
 * environment variables, so no value can inject a command.
 */
#include "launcher.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const char SHELL[] = "/bin/sh";
const char SIGNAL_TOOL[] = "/usr/bin/env";

enum { MOST_OUTPUT = 16 << 20 }; /* bytes: a runaway must not fill the memory */

/* Names whose value is another at each launch, and the same for all of its commands; a plan gives
 * them when it is for one launch only. */
static struct {
    char pid[24], day[24], uuid[64];
} names_of_launch;

static void find_names(void)
{
    time_t now = time(NULL);
    struct tm local = {0};

    snprintf(names_of_launch.pid, sizeof names_of_launch.pid, "%ld", (long)getpid());
    if (localtime_r(&now, &local) != NULL)
        strftime(names_of_launch.day, sizeof names_of_launch.day, "%Y-%m-%d", &local);
    read_line("/proc/sys/kernel/random/uuid", names_of_launch.uuid, sizeof names_of_launch.uuid);
}

static void set_names(const struct record *names)
{
    setenv("PID", names_of_launch.pid, 1);
    if (*names_of_launch.day != '\0')
        setenv("TODAY", names_of_launch.day, 1);
    if (*names_of_launch.uuid != '\0')
        setenv("UUID", names_of_launch.uuid, 1);
    for (int at = 0; names != NULL && at < names->count; at++)
        putenv(names->field[at]);
}

static _Noreturn void become_shell(const struct command *command)
{
    char **field = command->record->field;
    int nothing = open("/dev/null", O_RDONLY);

    if (nothing < 0 || dup2(nothing, 0) < 0 || dup2(command->output, 1) < 0 || chdir("/") < 0)
        _exit(127);
    if (nothing > 2)
        close(nothing);
    if (*field[1] != '\0') {
        uid_t uid = (uid_t)strtoul(field[1], NULL, 10);
        gid_t gid = (gid_t)strtoul(field[2], NULL, 10);
        if (setgroups(0, NULL) < 0 || setresgid(gid, gid, gid) < 0 || setresuid(uid, uid, uid) < 0)
            _exit(127);
    }
    set_names(command->names);
    execl(SHELL, SHELL, "-c", field[3], (char *)NULL);
    _exit(127);
}

void start_commands(struct plan *plan)
{
    if (plan->command_count > 0)
        find_names();
    for (size_t at = 0; at < plan->command_count; at++) {
        struct command *command = &plan->commands[at];
        /* A file, not a pipe: a command that writes much must not wait for us to read. */
        command->output = memfd_create("red-wrap", MFD_CLOEXEC);
        if (command->output >= 0)
            command->pid = fork();
        if (command->output < 0 || command->pid < 0)
            fail(FAILED, "%s: cannot start the command: %s; try again", command->record->field[0],
                 strerror(errno));
        if (command->pid == 0)
            become_shell(command);
    }
}

static int wait_for(pid_t pid)
{
    int status;

    while (waitpid(pid, &status, 0) < 0) {
        if (errno != EINTR)
            return -1;
    }
    return status;
}

void wait_for_commands(const struct plan *plan)
{
    struct stat size;

    for (size_t at = 0; at < plan->command_count; at++) {
        const struct command *command = &plan->commands[at];
        const char *where = command->record->field[0], *text = command->record->field[3];
        int status = wait_for(command->pid);
        if (WIFSIGNALED(status))
            fail(FAILED, "%s: the command was ended by signal %d: %s; run it in a shell to see why",
                 where, WTERMSIG(status), text);
        if (status != 0)
            fail(FAILED, "%s: the command failed with status %d: %s; run it in a shell to see why",
                 where, WEXITSTATUS(status), text);
        if (fstat(command->output, &size) < 0 || size.st_size > MOST_OUTPUT)
            fail(FAILED, "%s: the command wrote more than %d MiB: %s; bind a file instead", where,
                 MOST_OUTPUT >> 20, text);
    }
}

/* On a terminal, Ctrl-C and Ctrl-\ go to bwrap too, and it would die of them while the application
 * handles them. So bwrap ignores them, and env(1) in the namespace undoes that. Starts the host's
 * env to see whether it can (coreutils 8.31): 0 when it is not wanted. */
pid_t start_signal_tool(const struct plan *plan, const char *command)
{
    struct sigaction interrupt;
    struct stat inside, outside;
    char host[PATH_MAX];

    if (!(isatty(0) || isatty(1) || isatty(2)) || strchr(command, '=') != NULL)
        return 0;
    if (sigaction(SIGINT, NULL, &interrupt) < 0 || interrupt.sa_handler == SIG_IGN)
        return 0; /* the caller ignores them: so shall the application */
    if (!find_on_host(plan, SIGNAL_TOOL, host) || stat(host, &inside) < 0 ||
        stat(SIGNAL_TOOL, &outside) < 0 || inside.st_ino != outside.st_ino ||
        inside.st_dev != outside.st_dev)
        return 0;
    pid_t pid = fork();
    if (pid == 0) {
        int nothing = open("/dev/null", O_RDWR);
        if (nothing < 0 || dup2(nothing, 1) < 0 || dup2(nothing, 2) < 0)
            _exit(127);
        execl(SIGNAL_TOOL, SIGNAL_TOOL, "--default-signal=INT,QUIT", "--", (char *)NULL);
        _exit(127);
    }
    return pid > 0 ? pid : 0;
}

bool signal_tool_works(pid_t pid)
{
    return pid > 0 && wait_for(pid) == 0;
}
