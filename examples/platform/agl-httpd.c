/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "aglhttp.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static volatile sig_atomic_t stop;

static void on_signal(int signal_number)
{
    (void)signal_number;
    stop = 1;
}

static int fail(const char *what, const char *name)
{
    fprintf(stderr, "agl-httpd: error: %s %s: %s\n", what, name, strerror(errno));
    return 1;
}

static int usage(FILE *to, int status)
{
    fputs("usage: agl-httpd [--port=PORT] --roothttp=DIRECTORY\n"
          "       agl-httpd --version | --help\n"
          "Serve the files of DIRECTORY on http://127.0.0.1:PORT/ until SIGTERM or SIGINT.\n"
          "PORT is 8080 unless given; 0 takes a free one.\n",
          to);
    return status;
}

static int parse_port(const char *text, unsigned short *port)
{
    char *end;

    errno = 0;
    unsigned long number = strtoul(text, &end, 10);
    if (errno || text[0] < '0' || text[0] > '9' || *end || number > 65535) {
        fprintf(stderr, "agl-httpd: error: --port=%s is no port; say a number from 0 to 65535\n",
                text);
        return -1;
    }
    *port = (unsigned short)number;
    return 0;
}

/* SIGTERM and SIGINT stay blocked but while waiting for a client: none is ever lost, and the
 * answer that is being sent is finished. Handlers work where we are pid 1 of a namespace, too. */
static void catch_signals(sigset_t *wait_mask)
{
    struct sigaction action = { .sa_handler = on_signal };
    sigset_t blocked;

    sigemptyset(&blocked);
    sigaddset(&blocked, SIGTERM);
    sigaddset(&blocked, SIGINT);
    sigprocmask(SIG_BLOCK, &blocked, wait_mask);
    sigdelset(wait_mask, SIGTERM);
    sigdelset(wait_mask, SIGINT);
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGINT, &action, NULL);
}

static int serve(const char *root, unsigned short port)
{
    sigset_t wait_mask;
    char name[32];

    catch_signals(&wait_mask);
    int root_fd = open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (root_fd < 0)
        return fail("cannot open directory", root);
    snprintf(name, sizeof name, "127.0.0.1:%u", port);
    int listen_fd = aglhttp_listen(&port);
    if (listen_fd < 0)
        return fail("cannot listen on", name);
    printf("agl-httpd: serving %s on http://127.0.0.1:%u/\n", root, port);
    fflush(stdout);
    if (aglhttp_serve(listen_fd, root_fd, &wait_mask, &stop) < 0)
        return fail("cannot serve on", name);
    close(listen_fd);
    close(root_fd);
    puts("agl-httpd: stopped");
    return 0;
}

int main(int argc, char **argv)
{
    static const struct option options[] = {
        { "port", required_argument, NULL, 'p' },
        { "roothttp", required_argument, NULL, 'r' },
        { "version", no_argument, NULL, 'v' },
        { "help", no_argument, NULL, 'h' },
        { NULL, 0, NULL, 0 },
    };
    const char *root = NULL;
    unsigned short port = 8080;
    int option;

    while ((option = getopt_long(argc, argv, "", options, NULL)) != -1) {
        switch (option) {
        case 'p':
            if (parse_port(optarg, &port) < 0)
                return 2;
            break;
        case 'r':
            root = optarg;
            break;
        case 'v':
            printf("agl-httpd %s (libaglhttp %s)\n", AGLHTTP_VERSION, aglhttp_version());
            return 0;
        case 'h':
            return usage(stdout, 0);
        default:
            return usage(stderr, 2);
        }
    }
    if (!root || optind != argc)
        return usage(stderr, 2);
    return serve(root, port);
}
