/* SPDX-License-Identifier: Apache-2.0
 *
 * The form of a plan: a first line that names it, then one record a line, a verb and its fields with
 * a tab between; \t, \n and \\ are written so; a last line "end N" with the number of records, so
 * that a torn file is none. redwrap/encode.py writes it.
 */
#include "launcher.h"

#include <stdlib.h>
#include <string.h>

static const char FIRST_LINE[] = "#redpak-launch-plan 2\n";

/* The name of each verb, and how many fields it has at least. */
static const struct {
    const char *name;
    int fields;
} TABLE[VERBS] = {
    [KEY] = {"key", 1},
    [SAY] = {"say", 1},
    [SET] = {"set", 2},
    [UNSET] = {"unset", 1},
    [HOSTNAME] = {"hostname", 1},
    [STAMP] = {"stamp", 3},
    [ABSENT] = {"absent", 1},
    [MISSING] = {"missing", 1},
    [NO_LINK] = {"no-link", 1},
    [PRESENT] = {"present", 2},
    [LOOKED] = {"looked", 2},
    [WRITABLE] = {"writable", 2},
    [NO_TOOL] = {"no-tool", 1},
    [UNTIL] = {"until", 1},
    [BWRAP] = {"bwrap", 1},
    [NAMES] = {"names", 0},
    [COMMAND] = {"command", 4},
    [VARIABLE] = {"variable", 3},
    [WORDS] = {"words", 1},
    [UMASK] = {"umask", 1},
    [CONTENT] = {"content", 2},
    [NAMESPACE] = {"namespace", 4},
    [JOIN] = {"join", 3},
    [NEW_TIME] = {"new-time", 2},
    [WRITE] = {"write", 4},
    [RUN_AS] = {"run-as", 4},
    [SEARCH] = {"search", 1},
    [DIRECTORY] = {"directory", 1},
    [BASE] = {"base", 1},
    [RUNNING] = {"running", 2},
    [BIND] = {"bind", 5},
    [OVERLAY] = {"overlay", 5},
    [SYMLINK] = {"symlink", 3},
    [TMPFS] = {"tmpfs", 2},
    [DEV] = {"dev", 2},
    [OUTPUT] = {"output", 4},
    [HANDED] = {"handed", 3},
    [LEFT] = {"left", 2},
};

/* Undo the escapes of a field in place. */
static bool unescape(char *text)
{
    char *to = strchr(text, '\\');

    for (const char *from = to; from != NULL && *from != '\0'; from++) {
        char letter = *from;
        if (letter == '\\') {
            letter = *++from;
            if (letter != 't' && letter != 'n' && letter != '\\')
                return false;
            letter = letter == 't' ? '\t' : letter == 'n' ? '\n' : '\\';
        }
        *to++ = letter;
    }
    if (to != NULL)
        *to = '\0';
    return true;
}

static bool parse_record(struct record *record, char **field, char *line)
{
    for (record->field = field; line != NULL; record->count++) {
        char *rest = strchr(line, '\t');
        if (rest != NULL)
            *rest++ = '\0';
        *field++ = line;
        if (!unescape(line))
            return false;
        line = rest;
    }
    for (record->verb = 0; record->verb < VERBS; record->verb++) {
        if (strcmp(record->field[0], TABLE[record->verb].name) == 0)
            break;
    }
    record->field++;
    record->count--;
    return record->verb < VERBS && record->count >= TABLE[record->verb].fields &&
           (!is_mount(record) || *record->field[0] == '/');
}

/* Find the commands; false when a record asks for the output of one that is not there. */
static bool collect_commands(struct plan *plan)
{
    const struct record *names = NULL;

    plan->commands = allocate(plan->count * sizeof *plan->commands);
    for (size_t at = 0; at < plan->count; at++) {
        const struct record *record = &plan->records[at];
        if (record->verb == NAMES)
            names = record;
        else if (record->verb == COMMAND)
            plan->commands[plan->command_count++] = (struct command){record, names, 0, -1};
        else if ((record->verb == VARIABLE || record->verb == OUTPUT) &&
                 strtoul(record->field[record->verb == VARIABLE ? 1 : 2], NULL, 10) >=
                     plan->command_count)
            return false;
    }
    return true;
}

/* `text` has `length` bytes and one NUL more; the plan points into it. */
bool parse_plan(struct plan *plan, char *text, size_t length)
{
    size_t lines = 0, fields = 0;

    *plan = (struct plan){0};
    if (strlen(text) != length || strncmp(text, FIRST_LINE, sizeof FIRST_LINE - 1) != 0)
        return false;
    text += sizeof FIRST_LINE - 1;
    for (const char *at = text; *at != '\0'; at++) {
        lines += *at == '\n';
        fields += *at == '\n' || *at == '\t';
    }
    plan->records = allocate(lines * sizeof *plan->records);
    char **field = allocate(fields * sizeof *field);
    for (char *end; (end = strchr(text, '\n')) != NULL; text = end + 1) {
        *end = '\0';
        if (strncmp(text, "end\t", 4) == 0)
            return end[1] == '\0' && strtoul(text + 4, NULL, 10) == plan->count &&
                   find_record(plan, BWRAP) != NULL && collect_commands(plan);
        struct record *record = &plan->records[plan->count++];
        if (!parse_record(record, field, text))
            return false;
        field += record->count + 1;
    }
    return false;
}

/* The first record of a kind, or NULL. */
const struct record *find_record(const struct plan *plan, enum verb verb)
{
    for (size_t at = 0; at < plan->count; at++) {
        if (plan->records[at].verb == verb)
            return &plan->records[at];
    }
    return NULL;
}

bool is_mount(const struct record *record)
{
    return record->verb >= BIND;
}

/* Whether a path is something in a directory; both absolute and normal. (Nothing is mounted over the
 * root itself.) */
bool is_below(const char *path, const char *directory)
{
    size_t length = strlen(directory);

    return strncmp(path, directory, length) == 0 && path[length] == '/';
}
