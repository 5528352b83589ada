/* Memory: what the driver holds, plus what the live processes announced. */
#include <stdlib.h>

#include "fake.h"

#define GPU_TOTAL_MB 81559
#define GPU_USED_MB 45
#define GPU_RESERVED_MB 551
#define MIG_TOTAL_MB 9856
#define MIG_USED_MB 12

struct memory_mb {
    unsigned long long total, reserved, used;
};

static nvmlReturn_t announced_mb(const struct device *device, unsigned long long *sum)
{
    struct process_list list = {0};
    nvmlReturn_t code = list_processes(device, &list);

    *sum = 0;
    for (size_t i = 0; code == NVML_SUCCESS && i < list.count; i++)
        if (list.items[i].memory_known)
            *sum += list.items[i].memory_mb;
    free(list.items);
    return code;
}

static nvmlReturn_t used_mb(const struct device *device, unsigned long long *used)
{
    unsigned long long baseline, announced;
    bool mig = device->mig != NO_MIG;
    nvmlReturn_t code =
        read_number(device->path, "memory_used_override_mb", NO_DEFAULT, MB_LIMIT, used);

    if (code != NVML_ERROR_NOT_SUPPORTED) /* that is: the file is there */
        return code;
    TRY(read_number(device->path, "memory_used_mb", mig ? MIG_USED_MB : GPU_USED_MB, MB_LIMIT,
                    &baseline));
    TRY(announced_mb(device, &announced));
    *used = baseline + announced;
    return NVML_SUCCESS;
}

/* used + reserved never exceeds the total, as on real hardware. */
static nvmlReturn_t read_memory(const struct device *device, struct memory_mb *memory)
{
    bool mig = device->mig != NO_MIG;

    if (is_present(device->path, "memory_unsupported"))
        return NVML_ERROR_NOT_SUPPORTED;
    TRY(read_number(device->path, "memory_total_mb", mig ? MIG_TOTAL_MB : GPU_TOTAL_MB, MB_LIMIT,
                    &memory->total));
    TRY(read_number(device->path, "memory_reserved_mb", mig ? 0 : GPU_RESERVED_MB, MB_LIMIT,
                    &memory->reserved));
    TRY(used_mb(device, &memory->used));
    if (memory->reserved > memory->total)
        memory->reserved = memory->total;
    if (memory->used > memory->total - memory->reserved)
        memory->used = memory->total - memory->reserved;
    return NVML_SUCCESS;
}

/* Version 1 has no field for what the driver reserves: it counts as used. */
EXPORT nvmlReturn_t nvmlDeviceGetMemoryInfo(nvmlDevice_t handle, nvmlMemory_t *memory)
{
    struct device device;
    struct memory_mb mb;

    TRY(enter_device(__func__, handle, &device));
    if (memory == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    TRY(read_memory(&device, &mb));
    memory->total = MB_TO_BYTES(mb.total);
    memory->used = MB_TO_BYTES(mb.used + mb.reserved);
    memory->free = memory->total - memory->used;
    return NVML_SUCCESS;
}

#ifndef FAKE_NVML_OLD
EXPORT nvmlReturn_t nvmlDeviceGetMemoryInfo_v2(nvmlDevice_t handle, nvmlMemory_v2_t *memory)
{
    struct device device;
    struct memory_mb mb;

    TRY(enter_device(__func__, handle, &device));
    if (memory == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    if (memory->version != NVML_MEMORY_V2)
        return NVML_ERROR_ARGUMENT_VERSION_MISMATCH;
    TRY(read_memory(&device, &mb));
    memory->total = MB_TO_BYTES(mb.total);
    memory->reserved = MB_TO_BYTES(mb.reserved);
    memory->used = MB_TO_BYTES(mb.used);
    memory->free = memory->total - memory->reserved - memory->used;
    return NVML_SUCCESS;
}
#endif
