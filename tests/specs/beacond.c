// SPDX-License-Identifier: Apache-2.0
// beacond: says on 127.0.0.1, to each who connects, what its files say; counts them below /var.
#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

void beacon_read(const char *path, char *line, int size);
void beacon_greeting(char *line, int size);

static int count_visit(void)
{
    int count = 0;
    FILE *file = fopen("/var/lib/beacon/count", "r");
    if (file) {
        if (fscanf(file, "%d", &count) != 1)
            count = 0;
        fclose(file);
    }
    file = fopen("/var/lib/beacon/count", "w");
    if (!file)
        return -1;
    fprintf(file, "%d\n", ++count);
    fclose(file);
    return count;
}

int main(int argc, char **argv)
{
    (void)argv;
    if (argc > 1) /* the linker has found the library: that was all */
        return 0;
    struct sockaddr_in address = {.sin_family = AF_INET};
    socklen_t size = sizeof address;
    int server = socket(AF_INET, SOCK_STREAM, 0);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    if (bind(server, (struct sockaddr *)&address, sizeof address) || listen(server, 5) ||
        getsockname(server, (struct sockaddr *)&address, &size)) {
        perror("beacond");
        return 1;
    }
    FILE *pid = fopen("/run/beacond.pid", "w");
    if (pid) {
        fprintf(pid, "%d\n", getpid());
        fclose(pid);
    }
    printf("%d\n", ntohs(address.sin_port));
    fflush(stdout);
    for (;;) {
        char own[99], platform[99], greeting[99], answer[400];
        int client = accept(server, NULL, NULL);
        if (client < 0)
            continue;
        beacon_read("/etc/beacon/beacond.conf", own, sizeof own);
        beacon_read("/etc/beacon/platform.conf", platform, sizeof platform);
        beacon_greeting(greeting, sizeof greeting);
        int length = snprintf(answer, sizeof answer, "%s %s %s %d\n", own, platform, greeting,
                              count_visit());
        if (write(client, answer, length) != length)
            perror("beacond");
        close(client);
    }
}
