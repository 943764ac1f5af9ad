/* SPDX-License-Identifier: Apache-2.0
 *
 * What red-wrap changes in its own process, and the last step: to become bwrap.
 */
#include "launcher.h"

#include <errno.h>
#include <fcntl.h>
#include <grp.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

enum { TIME_NAMESPACE = 0x80 };      /* CLONE_NEWTIME, Linux 5.6 */
enum { JOIN_SESSION_KEYRING = 1 };   /* linux/keyctl.h */
enum { KEYRING_TRIES = 250 };

/* The descriptors that bwrap gets, and their numbers. */
enum { MOST_DESCRIPTORS = 64 };
static struct {
    int fd, number;
} handed[MOST_DESCRIPTORS];
static int handed_count;

extern char **environ;

static int number_of(const char *text)
{
    return (int)strtol(text, NULL, 10);
}

/* The two last fields of a record: what is asked for, with its place, and what to do. */
static _Noreturn void fail_with(const struct record *record)
{
    fail(FAILED, "%s: %s%s", record->field[record->count - 2], strerror(errno),
         record->field[record->count - 1]);
}

static void hand_over(int fd, int number)
{
    if (handed_count == MOST_DESCRIPTORS)
        fail(FAILED, "the launch needs more than %d descriptors; use fewer namespaces and Internal "
             "exports", MOST_DESCRIPTORS);
    handed[handed_count].fd = fd;
    handed[handed_count++].number = number;
}

/* Enter the namespaces that the configuration names, as the caller still, and before a mount covers
 * their paths; open those that bwrap enters. */
void join_namespaces(const struct plan *plan)
{
    for (size_t at = 0; at < plan->count; at++) {
        const struct record *record = &plan->records[at];
        if (record->verb != JOIN && record->verb != NAMESPACE)
            continue;
        int fd = open(record->field[record->verb == JOIN ? 0 : 1], O_RDONLY | O_CLOEXEC);
        if (fd < 0 || (record->verb == JOIN && setns(fd, 0) < 0))
            fail_with(record);
        if (record->verb == NAMESPACE)
            hand_over(fd, number_of(record->field[0]));
        else
            close(fd);
    }
}

static int become_user(const struct record *record)
{
    uid_t uid = (uid_t)strtoul(record->field[0], NULL, 10);
    gid_t gid = (gid_t)strtoul(record->field[1], NULL, 10);
    int count = record->count - 4;
    gid_t *groups = allocate((size_t)(count + 1) * sizeof *groups);

    for (int at = 0; at < count; at++)
        groups[at] = (gid_t)strtoul(record->field[2 + at], NULL, 10);
    if (setgroups((size_t)count, groups) < 0 || setresgid(gid, gid, gid) < 0)
        return -1;
    return setresuid(uid, uid, uid);
}

static int write_label(const struct record *record)
{
    int fd = open(record->field[0], O_WRONLY | O_CLOEXEC);
    size_t length = strlen(record->field[1]);

    return fd >= 0 && write(fd, record->field[1], length) == (ssize_t)length ? close(fd) : -1;
}

/* What another user may no longer do comes first. */
void become_application(const struct plan *plan)
{
    for (size_t at = 0; at < plan->count; at++) {
        const struct record *record = &plan->records[at];
        if ((record->verb == NEW_TIME && unshare(TIME_NAMESPACE) < 0) ||
            (record->verb == WRITE && write_label(record) < 0) ||
            (record->verb == RUN_AS && become_user(record) < 0))
            fail_with(record);
        if (record->verb == UMASK)
            umask((mode_t)strtoul(record->field[0], NULL, 8));
    }
}

static int memory_file(const void *data, size_t length)
{
    int fd = memfd_create("red-wrap", MFD_CLOEXEC);

    if (fd < 0 || write(fd, data, length) != (ssize_t)length || lseek(fd, 0, SEEK_SET) < 0)
        fail(FAILED, "cannot make a file in memory: %s", strerror(errno));
    return fd;
}

static int hexadecimal(const char *text)
{
    size_t length = strlen(text) / 2;
    unsigned char *data = allocate(length + 1);
    unsigned value;

    for (size_t at = 0; at < length; at++) {
        sscanf(text + 2 * at, "%2x", &value);
        data[at] = (unsigned char)value;
    }
    return memory_file(data, length);
}

/* Everything but the mounts' own: where bwrap makes the mounts, outputs and handed files, too. */
static void gather_descriptors(const struct plan *plan, bool mounted)
{
    for (size_t at = 0; at < plan->count; at++) {
        const struct record *record = &plan->records[at];
        if (record->verb == CONTENT) {
            hand_over(hexadecimal(record->field[1]), number_of(record->field[0]));
        } else if (record->verb == HANDED && !mounted) {
            hand_over(number_of(record->field[2]), number_of(record->field[2]));
        } else if (record->verb == OUTPUT && !mounted) {
            int output = plan->commands[number_of(record->field[2])].output;
            if (lseek(output, 0, SEEK_SET) < 0)
                fail(FAILED, "%s: %s", record->field[1], strerror(errno));
            hand_over(output, number_of(record->field[3]));
        }
    }
}

/* Put them under the numbers that bwrap expects; all others end with exec. What we hold may have one
 * of these numbers: copies above them are safe. */
static void place_descriptors(int above)
{
    for (int at = 0; at < handed_count; at++) {
        handed[at].fd = fcntl(handed[at].fd, F_DUPFD_CLOEXEC, above);
        if (handed[at].fd < 0)
            fail(FAILED, "cannot place a descriptor: %s", strerror(errno));
    }
    for (int at = 0; at < handed_count; at++) {
        if (dup2(handed[at].fd, handed[at].number) < 0)
            fail(FAILED, "cannot place a descriptor: %s", strerror(errno));
    }
}

/* bwrap's arguments, each with a NUL after it. */
struct words {
    char *text;
    size_t length, room;
};

static void add_text(struct words *words, const char *text, size_t length)
{
    if (words->length + length + 1 > words->room) {
        words->room = (words->room + length) * 2 + 4096;
        words->text = realloc(words->text, words->room);
        if (words->text == NULL)
            fail(FAILED, "no memory is left");
    }
    memcpy(words->text + words->length, text, length);
    words->text[words->length + length] = '\0';
    words->length += length + 1;
}

static void add_word(struct words *words, const char *text)
{
    add_text(words, text, strlen(text));
}

/* The output of a command as the value of a variable: one trailing newline is cut. */
static void add_variable(struct words *words, const struct plan *plan, const struct record *record)
{
    const struct command *command = &plan->commands[number_of(record->field[1])];
    size_t length;
    char *text;

    if (lseek(command->output, 0, SEEK_SET) < 0 || read_all(command->output, &text, &length) < 0)
        fail(FAILED, "%s: %s", record->field[2], strerror(errno));
    if (length > 0 && text[length - 1] == '\n')
        text[--length] = '\0';
    if (strlen(text) != length)
        fail(FAILED, "%s: the output of the command has a NUL byte: %s; correct the command",
             record->field[2], command->record->field[3]);
    add_word(words, "--setenv");
    add_word(words, record->field[0]);
    add_text(words, text, length);
    free(text);
}

static int arguments_file(const struct plan *plan)
{
    struct words words = {0};

    for (size_t at = 0; at < plan->count; at++) {
        const struct record *record = &plan->records[at];
        if (record->verb == VARIABLE)
            add_variable(&words, plan, record);
        for (int word = 0; record->verb == WORDS && word < record->count; word++)
            add_word(&words, record->field[word]);
    }
    return memory_file(words.text, words.length);
}

/* What the caller keeps in its session keyring (keyrings(7)) is not for the application, which gets
 * one of its own. An ordinary user may have some 200 keys at a time (kernel.keys.maxkeys). */
static void leave_keyring(void)
{
    const struct timespec pause = {0, 20 * 1000 * 1000};

    for (int turn = 0; syscall(SYS_keyctl, JOIN_SESSION_KEYRING, NULL) < 0; turn++) {
        if (errno == ENOSYS || errno == EPERM) /* no keys here, for the application neither */
            return;
        if (turn == KEYRING_TRIES)
            fail(FAILED, "cannot make a keyring: %s; end other applications of this user, or raise "
                 "kernel.keys.maxkeys", errno == EDQUOT ? "too many keys" : strerror(errno));
        nanosleep(&pause, NULL);
    }
}

/* Through a descriptor: neither the length of the command line nor ps sees the arguments. */
_Noreturn void become_bwrap(const struct plan *plan, char **command, int mark, bool with_tool)
{
    const char *bwrap = find_record(plan, BWRAP)->field[0];
    int above = 3, words = 0, count = 0;
    char number[2][16];

    gather_descriptors(plan, find_record(plan, BASE) != NULL);
    for (int at = 0; at < handed_count; at++) {
        if (handed[at].number >= above)
            above = handed[at].number + 1;
    }
    snprintf(number[0], sizeof number[0], "%d", above);
    hand_over(arguments_file(plan), above++);
    snprintf(number[1], sizeof number[1], "%d", above);
    if (mark >= 0)
        hand_over(mark, above++);
    place_descriptors(above);

    while (command[words] != NULL)
        words++;
    const char **argv = allocate((size_t)(words + 10) * sizeof *argv);
    argv[count++] = bwrap;
    if (mark >= 0) {
        argv[count++] = "--sync-fd";
        argv[count++] = number[1];
    }
    argv[count++] = "--args";
    argv[count++] = number[0];
    argv[count++] = "--";
    if (with_tool) {
        signal(SIGINT, SIG_IGN);
        signal(SIGQUIT, SIG_IGN);
        argv[count++] = SIGNAL_TOOL;
        argv[count++] = "--default-signal=INT,QUIT";
        argv[count++] = "--";
    }
    memcpy(argv + count, command, (size_t)(words + 1) * sizeof *argv);
    restore_limit();
    leave_keyring();
    execve(bwrap, (char **)argv, environ);
    fail(FAILED, "%s: %s; name another with --bwrap=PATH", bwrap, strerror(errno));
}
