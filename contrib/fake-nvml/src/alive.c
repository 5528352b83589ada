/* Liveness of a pid, from /proc/PID/stat. */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "alive.h"
#include "fake.h"

#define FIELDS_FROM_STATE_TO_START 19 /* proc(5): the state is field 3, the start time field 22 */

/* The command name may hold spaces and parentheses, so fields count from the last ")". */
static bool parse_stat(char *stat, char *state, unsigned long long *start)
{
    char *cursor = strrchr(stat, ')');
    char *word = NULL;

    if (cursor == NULL || cursor[1] != ' ')
        return false;
    cursor += 2;
    *state = *cursor;
    for (int i = 0; i <= FIELDS_FROM_STATE_TO_START; i++)
        if ((word = strsep(&cursor, " \n")) == NULL)
            return false;
    return parse_number(word, ~0ull, start);
}

bool is_alive(unsigned int pid, unsigned long long start)
{
    char path[64], stat[FIELD_MAX + 2], state;
    unsigned long long started;
    size_t length;

    snprintf(path, sizeof path, "/proc/%u/stat", pid);
    if (read_bytes(path, stat, &length) != FILE_OK) /* gone, or hidden by hidepid= */
        return kill((pid_t)pid, 0) == 0 || errno == EPERM;
    if (!parse_stat(stat, &state, &started))
        return false;
    return state != 'Z' && state != 'X' && (start == 0 || start == started);
}
