/* SPDX-License-Identifier: Apache-2.0 */
/* helloworld: fetch a page of helloworld-service, or of any agl-httpd, and print it. */
#include <aglhttp.h>

#include <errno.h>
#include <stdlib.h>
#include <string.h>

int main(int argc, char **argv)
{
    const char *path = argc == 3 ? argv[2] : "/";
    char *end = "?";
    unsigned long port = argc == 2 || argc == 3 ? strtoul(argv[1], &end, 10) : 0;

    if (*end || port == 0 || port > 65535) {
        fputs("usage: helloworld PORT [PATH]\n", stderr);
        return 2;
    }
    int status = aglhttp_fetch((unsigned short)port, path, stdout);
    if (status < 0) {
        fprintf(stderr, "helloworld: error: no answer from 127.0.0.1:%lu: %s\n", port,
                strerror(errno));
        return 1;
    }
    return status == 200 ? 0 : 1;
}
