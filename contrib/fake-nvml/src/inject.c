/* Faults on demand: <node>/inject/<function> holds return=, delay_ms=, hang=, absent=, gpu=. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "fake.h"

struct fault {
    unsigned long long code, delay_ms, hang, absent;
    bool elsewhere;                   /* meant for other GPUs than this one */
};

static void sleep_ms(unsigned long long milliseconds)
{
    struct timespec left = {(time_t)(milliseconds / 1000), (long)(milliseconds % 1000) * 1000000};

    while (nanosleep(&left, &left) != 0 && errno == EINTR)
        ;
}

/* gpu=0,2 means these GPUs themselves; gpu=0/1 means MIG device 1 of GPU 0. */
static bool names_device(char *list, int gpu, int mig)
{
    char wanted[32];
    char *item;

    if (mig == NO_MIG)
        snprintf(wanted, sizeof wanted, "%d", gpu);
    else
        snprintf(wanted, sizeof wanted, "%d/%d", gpu, mig);
    while ((item = strsep(&list, ",")) != NULL)
        if (strcmp(item, wanted) == 0)
            return true;
    return false;
}

static bool parse_fault(char *text, int gpu, int mig, struct fault *fault)
{
    char *line, *value;

    while ((line = next_line(&text)) != NULL) {
        value = split_value(line);
        if (value == NULL)
            return false;
        if (strcmp(line, "gpu") == 0)
            fault->elsewhere = !names_device(value, gpu, mig);
        else if (strcmp(line, "return") == 0 ? !parse_number(value, 9999, &fault->code)
                 : strcmp(line, "delay_ms") == 0 ? !parse_number(value, 86400000, &fault->delay_ms)
                 : strcmp(line, "hang") == 0 ? !parse_number(value, 1, &fault->hang)
                 : strcmp(line, "absent") == 0 ? !parse_number(value, 1, &fault->absent)
                                               : true)
            return false;
    }
    return true;
}

static nvmlReturn_t apply(const char *path, int gpu, int mig)
{
    char text[FIELD_MAX + 2];
    struct fault fault = {0};
    enum file_status status = read_text(path, text);

    if (status == FILE_MISSING)
        return NVML_SUCCESS;
    if (status == FILE_BAD || !parse_fault(text, gpu, mig, &fault))
        return NVML_ERROR_UNKNOWN;
    if (fault.elsewhere)
        return NVML_SUCCESS;
    sleep_ms(fault.delay_ms);
    while (fault.hang)
        pause();
    return fault.absent ? NVML_ERROR_FUNCTION_NOT_FOUND : (nvmlReturn_t)fault.code;
}

/* The exact symbol first, then its name without _vN, which stands for all versions of it. */
nvmlReturn_t inject(const char *node, const char *function, int gpu, int mig)
{
    char directory[PATH_MAX], path[PATH_MAX], base[128];
    const char *version = strstr(function, "_v");

    if (!join(directory, node, "inject") || access(directory, F_OK) != 0)
        return NVML_SUCCESS;
    if (!join(path, directory, function))
        return NVML_ERROR_UNKNOWN;
    TRY(apply(path, gpu, mig));
    if (strcmp(function, "nvmlInitWithFlags") == 0)
        snprintf(base, sizeof base, "nvmlInit");
    else if (version != NULL)
        snprintf(base, sizeof base, "%.*s", (int)(version - function), function);
    else
        return NVML_SUCCESS;
    return join(path, directory, base) ? apply(path, gpu, mig) : NVML_ERROR_UNKNOWN;
}
