/* The processes announced on a device, and the calls that list them. */
#include <dirent.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "alive.h"
#include "fake.h"

struct announcement {
    struct process process;
    unsigned long long start, ghost;
};

static bool parse_kinds(const char *letters, unsigned int *kinds)
{
    *kinds = 0;
    for (; *letters != '\0'; letters++) {
        const char *known = "CGM", *found = strchr(known, *letters);

        if (found == NULL)
            return false;
        *kinds |= 1u << (found - known);
    }
    return *kinds != 0;
}

static bool parse_memory(const char *value, struct process *process)
{
    process->memory_known = strcmp(value, "n/a") != 0;
    return !process->memory_known || parse_number(value, MB_LIMIT, &process->memory_mb);
}

static bool parse_announcement(char *text, struct announcement *announcement)
{
    char *line, *value;

    while ((line = next_line(&text)) != NULL) {
        value = split_value(line);
        if (value == NULL)
            return false;
        if (strcmp(line, "memory_mb") == 0   ? !parse_memory(value, &announcement->process)
            : strcmp(line, "type") == 0      ? !parse_kinds(value, &announcement->process.kinds)
            : strcmp(line, "start") == 0     ? !parse_number(value, ~0ull, &announcement->start)
            : strcmp(line, "ghost") == 0     ? !parse_number(value, 1, &announcement->ghost)
                                             : true)
            return false;
    }
    return true;
}

/* A file is named after its pid; after a dot anything may follow ("4711.2"). */
static bool parse_pid(const char *name, unsigned int *pid)
{
    char digits[12];
    size_t length = strcspn(name, ".");
    unsigned long long number;

    if (length >= sizeof digits)
        return false;
    memcpy(digits, name, length);
    digits[length] = '\0';
    if (!parse_number(digits, INT_MAX, &number) || number == 0)
        return false;
    *pid = (unsigned int)number;
    return true;
}

static nvmlReturn_t append(struct process_list *list, const struct process *process)
{
    if (list->count == list->capacity) {
        size_t capacity = list->capacity == 0 ? 16 : list->capacity * 2;
        struct process *items = realloc(list->items, capacity * sizeof *items);

        if (items == NULL)
            return NVML_ERROR_MEMORY;
        list->items = items;
        list->capacity = capacity;
    }
    list->items[list->count++] = *process;
    return NVML_SUCCESS;
}

static nvmlReturn_t add_announced(const char *directory, const char *name,
                                  const struct process *template, struct process_list *list)
{
    char path[PATH_MAX], text[FIELD_MAX + 2];
    struct announcement announcement = {.process = *template};
    enum file_status status;

    if (!parse_pid(name, &announcement.process.pid))
        return NVML_SUCCESS; /* a file still being written, or not a process at all */
    if (!join(path, directory, name))
        return NVML_ERROR_UNKNOWN;
    status = read_text(path, text);
    if (status == FILE_MISSING)
        return NVML_SUCCESS; /* it ended meanwhile */
    if (status == FILE_BAD || !parse_announcement(text, &announcement))
        return NVML_ERROR_UNKNOWN;
    if (!announcement.ghost && !is_alive(announcement.process.pid, announcement.start))
        return NVML_SUCCESS;
    return append(list, &announcement.process);
}

static nvmlReturn_t add_directory(const struct device *device, struct process_list *list)
{
    struct process template = {.kinds = KIND_COMPUTE,
                               .gpu_instance = NVML_NO_INSTANCE,
                               .compute_instance = NVML_NO_INSTANCE};
    char directory[PATH_MAX];
    nvmlReturn_t code = NVML_SUCCESS;
    struct dirent *entry;
    DIR *stream;

    if (device->mig != NO_MIG)
        TRY(mig_instances(device, &template.gpu_instance, &template.compute_instance));
    if (!join(directory, device->path, "processes"))
        return NVML_ERROR_UNKNOWN;
    stream = opendir(directory);
    if (stream == NULL)
        return errno == ENOENT ? NVML_SUCCESS : NVML_ERROR_UNKNOWN;
    while (code == NVML_SUCCESS && (entry = readdir(stream)) != NULL)
        code = add_announced(directory, entry->d_name, &template, list);
    closedir(stream);
    return code;
}

static int compare_pids(const void *left, const void *right)
{
    unsigned int a = ((const struct process *)left)->pid, b = ((const struct process *)right)->pid;

    return (a > b) - (a < b);
}

/* Those of a GPU include those of its MIG devices. The caller frees list->items, always. */
nvmlReturn_t list_processes(const struct device *device, struct process_list *list)
{
    struct device part;

    TRY(add_directory(device, list));
    if (has_mig(device))
        for (int mig = 0; mig < MAX_MIG; mig++)
            if (open_device(device->node, device->gpu, mig, &part))
                TRY(add_directory(&part, list));
    if (list->count > 0)
        qsort(list->items, list->count, sizeof *list->items, compare_pids);
    return NVML_SUCCESS;
}

static void write_process(void *infos, size_t size, unsigned int at, const struct process *process,
                          bool hide_memory)
{
    nvmlProcessInfo_t info = {.pid = process->pid,
                              .usedGpuMemory = NVML_VALUE_NOT_AVAILABLE,
                              .gpuInstanceId = process->gpu_instance,
                              .computeInstanceId = process->compute_instance};

    if (process->memory_known && !hide_memory)
        info.usedGpuMemory = MB_TO_BYTES(process->memory_mb);
    /* The layout of v1 is the beginning of that of v2 and v3. */
    memcpy((char *)infos + size * at, &info, size);
}

/* NVML's convention: with too little room only the count is written. */
static nvmlReturn_t give_processes(const struct process_list *list, unsigned int kind,
                                   bool hide_memory, unsigned int *count, void *infos, size_t size)
{
    unsigned int room = *count, found = 0;

    for (size_t i = 0; i < list->count; i++)
        found += (list->items[i].kinds & kind) != 0;
    *count = found;
    if (found > 0 && (infos == NULL || room < found))
        return NVML_ERROR_INSUFFICIENT_SIZE;
    found = 0;
    for (size_t i = 0; i < list->count; i++)
        if (list->items[i].kinds & kind)
            write_process(infos, size, found++, &list->items[i], hide_memory);
    return NVML_SUCCESS;
}

/* NVML knows no process's memory under MIG. */
static nvmlReturn_t running(const char *function, nvmlDevice_t handle, unsigned int kind,
                            unsigned int *count, void *infos, size_t size)
{
    struct device device;
    struct process_list list = {0};
    nvmlReturn_t code;

    TRY(enter_device(function, handle, &device));
    if (count == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    code = list_processes(&device, &list);
    if (code == NVML_SUCCESS)
        code = give_processes(&list, kind, device.mig != NO_MIG || has_mig(&device), count, infos,
                              size);
    free(list.items);
    return code;
}

#define RUNNING_CALL(name, kind, type)                                                             \
    EXPORT nvmlReturn_t name(nvmlDevice_t handle, unsigned int *count, type *infos)                \
    {                                                                                              \
        return running(__func__, handle, kind, count, infos, sizeof *infos);                       \
    }

RUNNING_CALL(nvmlDeviceGetComputeRunningProcesses, KIND_COMPUTE, nvmlProcessInfo_v1_t)
RUNNING_CALL(nvmlDeviceGetComputeRunningProcesses_v2, KIND_COMPUTE, nvmlProcessInfo_t)
RUNNING_CALL(nvmlDeviceGetGraphicsRunningProcesses, KIND_GRAPHICS, nvmlProcessInfo_v1_t)
RUNNING_CALL(nvmlDeviceGetGraphicsRunningProcesses_v2, KIND_GRAPHICS, nvmlProcessInfo_t)
RUNNING_CALL(nvmlDeviceGetMPSComputeRunningProcesses, KIND_MPS, nvmlProcessInfo_v1_t)
RUNNING_CALL(nvmlDeviceGetMPSComputeRunningProcesses_v2, KIND_MPS, nvmlProcessInfo_t)
#ifndef FAKE_NVML_OLD
RUNNING_CALL(nvmlDeviceGetComputeRunningProcesses_v3, KIND_COMPUTE, nvmlProcessInfo_t)
RUNNING_CALL(nvmlDeviceGetGraphicsRunningProcesses_v3, KIND_GRAPHICS, nvmlProcessInfo_t)
RUNNING_CALL(nvmlDeviceGetMPSComputeRunningProcesses_v3, KIND_MPS, nvmlProcessInfo_t)
#endif
