// SPDX-License-Identifier: Apache-2.0
// beacon-filter TEXT: what each plugin of its directory makes of TEXT, in the order of their names.
#include <dirent.h>
#include <dlfcn.h>
#include <stdio.h>
#include <string.h>

#define PLUGINS "/usr/lib/beacon/plugins"

int main(int argc, char **argv)
{
    struct dirent **entries;
    int count = scandir(PLUGINS, &entries, NULL, alphasort);
    for (int number = 0; number < count; number++) {
        char path[512], text[512];
        if (!strstr(entries[number]->d_name, ".so"))
            continue;
        snprintf(path, sizeof path, PLUGINS "/%s", entries[number]->d_name);
        void *plugin = dlopen(path, RTLD_NOW);
        void (*filter)(char *) = plugin ? (void (*)(char *))dlsym(plugin, "filter") : NULL;
        if (!filter) {
            fprintf(stderr, "%s\n", dlerror());
            return 1;
        }
        snprintf(text, sizeof text, "%s", argc > 1 ? argv[1] : "");
        filter(text);
        printf("%s: %s\n", entries[number]->d_name, text);
    }
    return 0;
}
