/* The driver's accounting: what it has kept of each process, those that have ended included. */
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "fake.h"

#define BUFFER_SIZE 4000

static nvmlReturn_t enter_accounting(const char *function, nvmlDevice_t handle,
                                     struct device *device, unsigned long long *mode)
{
    TRY(enter_whole_gpu(function, handle, device));
    if (has_mig(device))
        return NVML_ERROR_NOT_SUPPORTED;
    return read_number(device->path, "accounting_mode", 0, 1, mode);
}

static nvmlReturn_t enter_enabled(const char *function, nvmlDevice_t handle, struct device *device)
{
    unsigned long long mode;

    TRY(enter_accounting(function, handle, device, &mode));
    return mode == 1 ? NVML_SUCCESS : NVML_ERROR_NOT_SUPPORTED;
}

EXPORT nvmlReturn_t nvmlDeviceGetAccountingMode(nvmlDevice_t handle, unsigned int *mode)
{
    struct device device;
    unsigned long long known;

    TRY(enter_accounting(__func__, handle, &device, &known));
    if (mode == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    *mode = (unsigned int)known;
    return NVML_SUCCESS;
}

/* Only root may; the state has the mode from then on. */
EXPORT nvmlReturn_t nvmlDeviceSetAccountingMode(nvmlDevice_t handle, unsigned int mode)
{
    struct device device;
    unsigned long long known;
    char draft[PATH_MAX], path[PATH_MAX];
    int descriptor;

    TRY(enter_accounting(__func__, handle, &device, &known));
    if (mode > 1)
        return NVML_ERROR_INVALID_ARGUMENT;
    if (geteuid() != 0)
        return NVML_ERROR_NO_PERMISSION;
    if (!join(draft, device.path, ".accounting_mode") || !join(path, device.path, "accounting_mode"))
        return NVML_ERROR_UNKNOWN;
    descriptor = open(draft, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
    if (descriptor < 0)
        return NVML_ERROR_UNKNOWN;
    if (write(descriptor, mode ? "1\n" : "0\n", 2) != 2) {
        close(descriptor);
        return NVML_ERROR_UNKNOWN;
    }
    close(descriptor);
    return rename(draft, path) == 0 ? NVML_SUCCESS : NVML_ERROR_UNKNOWN;
}

EXPORT nvmlReturn_t nvmlDeviceGetAccountingBufferSize(nvmlDevice_t handle, unsigned int *size)
{
    struct device device;
    unsigned long long mode;

    TRY(enter_accounting(__func__, handle, &device, &mode));
    if (size == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    *size = BUFFER_SIZE;
    return NVML_SUCCESS;
}

static unsigned int list_accounted(const char *directory, unsigned int *pids)
{
    DIR *stream = opendir(directory);
    struct dirent *entry;
    unsigned long long pid;
    unsigned int found = 0;

    if (stream == NULL)
        return 0;
    while (found < BUFFER_SIZE && (entry = readdir(stream)) != NULL)
        if (parse_number(entry->d_name, INT_MAX, &pid))
            pids[found++] = (unsigned int)pid;
    closedir(stream);
    return found;
}

EXPORT nvmlReturn_t nvmlDeviceGetAccountingPids(nvmlDevice_t handle, unsigned int *count,
                                                unsigned int *pids)
{
    struct device device;
    char directory[PATH_MAX];
    unsigned int known[BUFFER_SIZE], found;

    TRY(enter_enabled(__func__, handle, &device));
    if (count == NULL || !join(directory, device.path, "accounting"))
        return NVML_ERROR_INVALID_ARGUMENT;
    found = list_accounted(directory, known);
    if (found > *count || (found > 0 && pids == NULL)) {
        *count = found;
        return NVML_ERROR_INSUFFICIENT_SIZE;
    }
    *count = found;
    if (found > 0)
        memcpy(pids, known, found * sizeof *pids);
    return NVML_SUCCESS;
}

static bool parse_stats(char *text, nvmlAccountingStats_t *stats)
{
    char *line, *value;
    unsigned long long number;

    while ((line = next_line(&text)) != NULL) {
        value = split_value(line);
        if (value == NULL || !parse_number(value, ~0ull, &number))
            return false;
        if (strcmp(line, "gpu_utilization") == 0)
            stats->gpuUtilization = (unsigned int)number;
        else if (strcmp(line, "max_memory_mb") == 0)
            stats->maxMemoryUsage = MB_TO_BYTES(number);
        else if (strcmp(line, "time_ms") == 0)
            stats->time = number;
        else if (strcmp(line, "start_us") == 0)
            stats->startTime = number;
        else if (strcmp(line, "running") == 0)
            stats->isRunning = (unsigned int)number;
        else
            return false;
    }
    return true;
}

EXPORT nvmlReturn_t nvmlDeviceGetAccountingStats(nvmlDevice_t handle, unsigned int pid,
                                                 nvmlAccountingStats_t *stats)
{
    struct device device;
    char directory[PATH_MAX], path[PATH_MAX], text[FIELD_MAX + 2];
    enum file_status status;

    TRY(enter_enabled(__func__, handle, &device));
    if (stats == NULL || !join(directory, device.path, "accounting") ||
        !join_number(path, directory, (int)pid))
        return NVML_ERROR_INVALID_ARGUMENT;
    status = read_text(path, text);
    if (status == FILE_MISSING)
        return NVML_ERROR_NOT_FOUND;
    memset(stats, 0, sizeof *stats);
    return status == FILE_OK && parse_stats(text, stats) ? NVML_SUCCESS : NVML_ERROR_UNKNOWN;
}
