/* SPDX-License-Identifier: Apache-2.0 */
#define _GNU_SOURCE
#include "aglhttp.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define REQUEST_MAX 8192     /* bytes of a request's line and headers */
#define REQUEST_SECONDS 5    /* a slow client is dropped: there is but one thread */

static const struct {
    const char *suffix, *type;
} content_types[] = {
    { ".html", "text/html; charset=utf-8" },
    { ".css", "text/css; charset=utf-8" },
    { ".js", "text/javascript; charset=utf-8" },
    { ".txt", "text/plain; charset=utf-8" },
    { ".json", "application/json" },
    { ".svg", "image/svg+xml" },
    { ".png", "image/png" },
};

const char *aglhttp_version(void)
{
    return AGLHTTP_VERSION;
}

static void close_keeping_errno(int fd)
{
    int saved = errno;

    close(fd);
    errno = saved;
}

static struct sockaddr_in loopback(unsigned short port)
{
    struct sockaddr_in address = { .sin_family = AF_INET, .sin_port = htons(port) };

    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    return address;
}

int aglhttp_listen(unsigned short *port)
{
    struct sockaddr_in address = loopback(*port);
    socklen_t length = sizeof address;
    int reuse = 1;
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);

    if (fd < 0)
        return -1;
    if (setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &reuse, sizeof reuse) < 0
        || bind(fd, (struct sockaddr *)&address, sizeof address) < 0
        || listen(fd, 16) < 0
        || getsockname(fd, (struct sockaddr *)&address, &length) < 0) {
        close_keeping_errno(fd);
        return -1;
    }
    *port = ntohs(address.sin_port);
    return fd;
}

static int send_all(int fd, const char *data, size_t length)
{
    while (length > 0) {
        ssize_t sent = send(fd, data, length, MSG_NOSIGNAL);

        if (sent < 0 && errno == EINTR)
            continue;
        if (sent <= 0)
            return -1;
        data += sent;
        length -= (size_t)sent;
    }
    return 0;
}

static int send_status(int fd, const char *status, const char *type, long long length)
{
    char head[512];
    int size = snprintf(head, sizeof head,
                        "HTTP/1.0 %s\r\n"
                        "Server: agl-httpd/%s\r\n"
                        "Content-Type: %s\r\n"
                        "Content-Length: %lld\r\n"
                        "X-Content-Type-Options: nosniff\r\n"
                        "Connection: close\r\n\r\n",
                        status, AGLHTTP_VERSION, type, length);

    return send_all(fd, head, (size_t)size);
}

static void send_error(int fd, const char *status, int with_body)
{
    if (send_status(fd, status, "text/plain; charset=utf-8", (long long)strlen(status) + 1) == 0
        && with_body && send_all(fd, status, strlen(status)) == 0)
        (void)send_all(fd, "\n", 1);
}

static int hex_digit(char c)
{
    const char *digits = "0123456789abcdef";
    const char *found = c ? strchr(digits, c | 0x20) : NULL;

    return found ? (int)(found - digits) : -1;
}

/* Undo %XX in place. Returns -1 for a malformed escape and for an escaped NUL, which would end the
 * name early for everyone who looks at it later. */
static int decode_path(char *path)
{
    char *to = path;

    for (const char *from = path; *from; from++) {
        if (*from != '%') {
            *to++ = *from;
            continue;
        }
        int high = hex_digit(from[1]);
        int low = high < 0 ? -1 : hex_digit(from[2]);

        if (low < 0 || high + low == 0)
            return -1;
        *to++ = (char)(high * 16 + low);
        from += 2;
    }
    *to = '\0';
    return 0;
}

/* Open one name in a directory; dir_fd is closed. O_NOFOLLOW: a symlink could lead out of the root.
 * O_NONBLOCK: a fifo must not hold the only thread. */
static int step_into(int dir_fd, const char *name)
{
    int fd = openat(dir_fd, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);

    close_keeping_errno(dir_fd);
    return fd;
}

static int is_directory(int fd)
{
    struct stat status;

    return fstat(fd, &status) == 0 && S_ISDIR(status.st_mode);
}

/* Open a path below root_fd, name by name, so that neither ".." nor a symlink leaves the root.
 * Names with a leading dot are not served. A directory stands for its index.html; *type is set. */
static int open_below(int root_fd, char *path, const char **type)
{
    char *rest = NULL;
    const char *name = "index.html";
    int fd = openat(root_fd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    for (char *part = strtok_r(path, "/", &rest); part && fd >= 0; part = strtok_r(NULL, "/", &rest)) {
        if (part[0] == '.') {
            close(fd);
            errno = ENOENT;
            return -1;
        }
        fd = step_into(fd, part);
        name = part;
    }
    if (fd >= 0 && is_directory(fd)) {
        name = "index.html";
        fd = step_into(fd, name);
    }
    *type = "application/octet-stream";
    const char *suffix = strrchr(name, '.');
    for (size_t i = 0; suffix && i < sizeof content_types / sizeof *content_types; i++)
        if (strcasecmp(suffix, content_types[i].suffix) == 0)
            *type = content_types[i].type;
    return fd;
}

static void send_file(int client, int root_fd, char *path, int with_body)
{
    const char *type;
    struct stat status;
    char buffer[16384];
    int fd = open_below(root_fd, path, &type);

    if (fd < 0 || fstat(fd, &status) < 0 || !S_ISREG(status.st_mode)) {
        send_error(client, "404 Not Found", with_body);
        if (fd >= 0)
            close(fd);
        return;
    }
    int failed = send_status(client, "200 OK", type, (long long)status.st_size);
    for (off_t left = status.st_size; !failed && with_body && left > 0;) {
        size_t want = left < (off_t)sizeof buffer ? (size_t)left : sizeof buffer;
        ssize_t got = read(fd, buffer, want);

        if (got <= 0)
            break; /* shorter than announced: the client sees the early end */
        failed = send_all(client, buffer, (size_t)got);
        left -= got;
    }
    close(fd);
}

/* Read until the empty line that ends the headers. Returns 0, or -1 when the client sends too much,
 * too slowly, or hangs up. */
static int read_request(int client, char *request)
{
    size_t used = 0;
    struct timespec start, now;

    clock_gettime(CLOCK_MONOTONIC, &start);
    while (used < REQUEST_MAX - 1) {
        ssize_t got = recv(client, request + used, REQUEST_MAX - 1 - used, 0);

        if (got <= 0)
            return -1;
        used += (size_t)got;
        request[used] = '\0';
        if (strlen(request) != used)
            return -1; /* a NUL in the request */
        if (strstr(request, "\r\n\r\n") || strstr(request, "\n\n"))
            return 0;
        clock_gettime(CLOCK_MONOTONIC, &now);
        if (now.tv_sec - start.tv_sec >= REQUEST_SECONDS)
            return -1;
    }
    return -1;
}

static void answer(int client, int root_fd)
{
    char request[REQUEST_MAX];
    struct timeval patience = { .tv_sec = REQUEST_SECONDS };

    setsockopt(client, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
    setsockopt(client, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
    if (read_request(client, request) < 0) {
        send_error(client, "400 Bad Request", 1);
        return;
    }

    char *rest = NULL;
    char *line = strtok_r(request, "\r\n", &rest);
    char *words = NULL;
    char *method = line ? strtok_r(line, " ", &words) : NULL;
    char *path = method ? strtok_r(NULL, " ", &words) : NULL;
    char *protocol = path ? strtok_r(NULL, " ", &words) : NULL;

    if (!protocol || strncmp(protocol, "HTTP/", 5) != 0 || path[0] != '/') {
        send_error(client, "400 Bad Request", 1);
        return;
    }
    int get = strcmp(method, "GET") == 0;
    if (!get && strcmp(method, "HEAD") != 0) {
        send_error(client, "405 Method Not Allowed", 1);
        return;
    }
    path[strcspn(path, "?#")] = '\0';
    if (decode_path(path) < 0)
        send_error(client, "400 Bad Request", get);
    else
        send_file(client, root_fd, path, get);
}

int aglhttp_serve(int listen_fd, int root_fd, const sigset_t *wait_mask,
                  const volatile sig_atomic_t *stop)
{
    struct pollfd waiting = { .fd = listen_fd, .events = POLLIN };

    while (!*stop) {
        if (ppoll(&waiting, 1, NULL, wait_mask) < 0) {
            if (errno == EINTR)
                continue;
            return -1;
        }
        int client = accept4(listen_fd, NULL, NULL, SOCK_CLOEXEC);
        if (client < 0) {
            if (errno == EAGAIN || errno == EINTR || errno == ECONNABORTED)
                continue;
            return -1;
        }
        answer(client, root_fd);
        shutdown(client, SHUT_WR);
        close(client);
    }
    return 0;
}

static FILE *connect_loopback(unsigned short port)
{
    struct sockaddr_in address = loopback(port);
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    FILE *stream = NULL;

    if (fd < 0)
        return NULL;
    if (connect(fd, (struct sockaddr *)&address, sizeof address) == 0)
        stream = fdopen(fd, "r+");
    if (!stream)
        close_keeping_errno(fd);
    return stream;
}

int aglhttp_fetch(unsigned short port, const char *path, FILE *out)
{
    char *line = NULL;
    size_t room = 0;
    int status = -1;
    FILE *stream = connect_loopback(port);

    if (!stream)
        return -1;
    fprintf(stream, "GET %s HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n", path);
    fflush(stream);
    if (getline(&line, &room, stream) < 0 || sscanf(line, "HTTP/1.%*d %d", &status) != 1) {
        status = -1;
        errno = EPROTO;
    }
    while (status > 0 && getline(&line, &room, stream) > 0 && strcmp(line, "\r\n") != 0)
        continue;
    if (status > 0) {
        char buffer[4096];
        size_t got;

        while ((got = fread(buffer, 1, sizeof buffer, stream)) > 0)
            fwrite(buffer, 1, got, out);
    }
    free(line);
    int saved = errno;
    fclose(stream);
    errno = saved;
    return status;
}
