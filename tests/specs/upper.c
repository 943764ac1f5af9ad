// SPDX-License-Identifier: Apache-2.0
#include <ctype.h>

void filter(char *text)
{
    for (; *text; text++)
        *text = toupper((unsigned char)*text);
}
