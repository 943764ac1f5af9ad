// SPDX-License-Identifier: Apache-2.0
#include <string.h>

void filter(char *text)
{
    for (size_t low = 0, high = strlen(text); low + 1 < high; low++) {
        char letter = text[low];
        text[low] = text[--high];
        text[high] = letter;
    }
}
