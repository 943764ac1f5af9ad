/* SPDX-License-Identifier: Apache-2.0
 *
 * fuzz_launcher PLAN SECONDS SEED: mutate a real launch plan and a command line, and hand them to all
 * of the launcher that reads them before anything is executed. Built with sanitizers, which end it at
 * the first fault (tests/fuzz/test_fuzz_launcher.py). Each batch runs in a process of its own: the
 * launcher frees nothing.
 */
#include <setjmp.h>
#include <stdio.h>
#include <stdlib.h>

static jmp_buf failed;

/* fail() says nothing here, and comes back. */
#define dprintf(fd, format, ...) ((void)(format))
#define exit(status) longjmp(failed, status)
#define main launcher_main
#include "launcher.c"
#undef main
#undef exit
#undef dprintf

#include <sys/wait.h>
#include <time.h>

enum { BATCH = 2000, MOST_TEXT = 1 << 16 };

static const char *const PIECES[] = {
    "\t", "\n", "\\", "\\t", "\\n", "\\\\", "\\x", "/", "//", "..", ".", "", "-1", "0", "1", "4294967296",
    "99999999999999999999", "rw", "ro", "end\t", "bwrap\t", "bind\t", "overlay\t", "symlink\t", "output\t",
    "handed\t", "left\t", "stamp\t", "names\t", "command\t", "variable\t", "search\t", "directory\t",
    "looked\t", "running\t", "base\t", "run-as\t", "content\t", "\xff", "\x01",
};
static const char *const ARGUMENTS[] = {
    "--redpath=/", "--redpath", "--redpath=", "--rp", "--rpath=/tmp", "--rmain", "--rmain=/x", "--bwrap",
    "--bwrap=", "--", "-", "", "--rpathx", "--=", "true", "/bin/true", "./true", "a=b",
};

const char *__asan_default_options(void); /* asked for by AddressSanitizer */

const char *__asan_default_options(void)
{
    return "detect_leaks=0";
}

static size_t draw(size_t below)
{
    return below == 0 ? 0 : (size_t)random() % below;
}

/* Replace, double or cut some spans; now and then give it the end that a whole plan has. */
static size_t mutate(char *text, size_t length)
{
    for (size_t turn = draw(6) + 1; turn > 0; turn--) {
        size_t start = draw(length), cut = draw(40), at = draw(length), more = draw(60);
        char copy[64];
        const char *piece = PIECES[draw(sizeof PIECES / sizeof *PIECES)];
        size_t size = strlen(piece);

        if (draw(3) == 0) {
            size = more < length - at ? more : length - at;
            memcpy(copy, text + at, size);
            piece = copy;
        }
        cut = draw(2) == 0 ? 0 : cut < length - start ? cut : length - start;
        if (length - cut + size >= MOST_TEXT)
            continue;
        memmove(text + start + size, text + start + cut, length - start - cut);
        memcpy(text + start, piece, size);
        length += size - cut;
    }
    text[length] = '\0';
    char *end = strstr(text, "\nend\t");
    if (end != NULL && draw(4) != 0) {
        size_t lines = 0;
        for (char *at = text; at < end; at++)
            lines += *at == '\n';
        length = (size_t)(end - text) + (size_t)sprintf(end, "\nend\t%zu\n", lines);
    }
    return length;
}

static void try_plan(char *exact, size_t length, size_t *good)
{
    static const char *const COMMANDS[] = {"true", "/bin/sh", "./x", "../../../../x", "no-such", ""};
    char host[PATH_MAX];
    struct plan plan;

    if (setjmp(failed) != 0 || !parse_plan(&plan, exact, length))
        return;
    ++*good;
    (void)plan_holds(&plan, "key");
    (void)sources_open(&plan);
    (void)find_on_host(&plan, "/usr/bin/env", host);
    find_command(&plan, COMMANDS[draw(sizeof COMMANDS / sizeof *COMMANDS)]);
}

static void try_command_line(void)
{
    char *words[8] = {"red-wrap"};
    struct request request;

    for (size_t at = 1, count = draw(7); at <= count; at++)
        words[at] = strdup(ARGUMENTS[draw(sizeof ARGUMENTS / sizeof *ARGUMENTS)]);
    if (parse_request(words, &request))
        (void)make_key(&request);
}

int main(int argc, char **argv)
{
    char *seed;
    size_t length, good = 0, batches = 0;
    int fd = argc == 4 ? open(argv[1], O_RDONLY) : -1;
    time_t until = time(NULL) + (argc == 4 ? atol(argv[2]) : 0);

    if (fd < 0 || read_all(fd, &seed, &length) < 0)
        return 2;
    for (; time(NULL) < until; batches++) {
        int pipes[2], status;
        if (pipe(pipes) < 0)
            return 2;
        pid_t pid = fork();
        if (pid == 0) {
            srandom((unsigned)(atol(argv[3]) + (long)batches));
            good = 0;
            for (int turn = 0; turn < BATCH; turn++) {
                static char text[MOST_TEXT + 1];
                memcpy(text, seed, length);
                size_t size = mutate(text, length);
                char *exact = allocate(size); /* so that a read behind its end is seen */
                memcpy(exact, text, size);
                try_plan(exact, size, &good);
                try_command_line();
            }
            return write(pipes[1], &good, sizeof good) == sizeof good ? 0 : 2;
        }
        size_t some = 0;
        close(pipes[1]);
        ssize_t got = read(pipes[0], &some, sizeof some);
        close(pipes[0]);
        if (waitpid(pid, &status, 0) < 0 || status != 0 || got != sizeof some) {
            fprintf(stderr, "batch %zu of seed %s: status %d\n", batches, argv[3], status);
            return 1;
        }
        good += some;
    }
    printf("%zu plans, %zu of them well-formed\n", batches * BATCH, good);
    return 0;
}
