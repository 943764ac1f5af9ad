// SPDX-License-Identifier: Apache-2.0
// libbeacon: text of files whose paths are compiled in.
#include <stdio.h>
#include <string.h>

// The first line of a file without its end, "(none)" when there is none.
void beacon_read(const char *path, char *line, int size)
{
    FILE *file = fopen(path, "r");
    strcpy(line, "(none)");
    if (file) {
        if (fgets(line, size, file))
            line[strcspn(line, "\n")] = 0;
        fclose(file);
    }
}

void beacon_greeting(char *line, int size)
{
    beacon_read("/usr/share/beacon/greeting", line, size);
}
