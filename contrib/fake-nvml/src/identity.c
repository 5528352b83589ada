/* Which devices there are and what they are called. */
#include <stdio.h>
#include <string.h>

#include "fake.h"

static nvmlReturn_t device_count(const char *function, unsigned int *count)
{
    char node[PATH_MAX];
    int gpus[MAX_GPUS];

    TRY(enter(function, node));
    if (count == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    *count = (unsigned int)list_gpus(node, gpus);
    return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlDeviceGetCount(unsigned int *count)
{
    return device_count(__func__, count);
}

EXPORT nvmlReturn_t nvmlDeviceGetCount_v2(unsigned int *count)
{
    return device_count(__func__, count);
}

/* The NVML index is the rank among the GPUs that are there, as after a reboot without one. */
static nvmlReturn_t handle_by_index(const char *function, unsigned int index, nvmlDevice_t *handle)
{
    char node[PATH_MAX];
    int gpus[MAX_GPUS];
    bool there;

    TRY(enter_lookup(node));
    there = index < (unsigned int)list_gpus(node, gpus);
    TRY(inject(node, function, there ? gpus[index] : NO_GPU, NO_MIG));
    if (!there || handle == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    *handle = handle_of(gpus[index], NO_MIG);
    return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlDeviceGetHandleByIndex(unsigned int index, nvmlDevice_t *handle)
{
    return handle_by_index(__func__, index, handle);
}

EXPORT nvmlReturn_t nvmlDeviceGetHandleByIndex_v2(unsigned int index, nvmlDevice_t *handle)
{
    return handle_by_index(__func__, index, handle);
}

static uint64_t hash_text(const char *text, uint64_t hash)
{
    for (; *text != '\0'; text++)
        hash = (hash ^ (unsigned char)*text) * 0x100000001b3ull;
    return hash;
}

/* A device without a uuid file still has one of its own: made from its path below the state. */
nvmlReturn_t device_uuid(const struct device *device, char *uuid)
{
    const char *node = strrchr(device->node, '/');
    uint64_t high, low;
    char made[64];

    high = hash_text(node == NULL ? device->node : node, 0xcbf29ce484222325ull);
    high = hash_text(device->path + strlen(device->node), high);
    low = hash_text("uuid", high);
    snprintf(made, sizeof made, "%s-%08x-%04x-4%03x-8%03x-%012llx",
             device->mig == NO_MIG ? "GPU" : "MIG", (unsigned int)(high >> 32),
             (unsigned int)(high >> 16 & 0xffff), (unsigned int)(high & 0xfff),
             (unsigned int)(low >> 48 & 0xfff), (unsigned long long)(low & 0xffffffffffffull));
    return read_word(device->path, "uuid", made, uuid);
}

static bool has_uuid(const char *node, int gpu, int mig, const char *wanted)
{
    struct device device;
    char uuid[FIELD_MAX + 2];

    return open_device(node, gpu, mig, &device) && device_uuid(&device, uuid) == NVML_SUCCESS
           && strcmp(uuid, wanted) == 0;
}

/* Leaves NO_GPU when no device has that uuid. */
static void find_uuid(const char *node, const char *wanted, int *gpu, int *mig)
{
    int gpus[MAX_GPUS], count = list_gpus(node, gpus);
    int last = strncmp(wanted, "MIG-", 4) == 0 ? MAX_MIG : NO_MIG + 1;

    for (int i = 0; i < count; i++)
        for (*mig = NO_MIG; *mig < last; (*mig)++)
            if (has_uuid(node, *gpu = gpus[i], *mig, wanted))
                return;
    *gpu = NO_GPU;
    *mig = NO_MIG;
}

EXPORT nvmlReturn_t nvmlDeviceGetHandleByUUID(const char *uuid, nvmlDevice_t *handle)
{
    char node[PATH_MAX];
    int gpu, mig;

    TRY(enter_lookup(node));
    if (uuid == NULL || handle == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    find_uuid(node, uuid, &gpu, &mig);
    TRY(inject(node, __func__, gpu, mig));
    if (gpu == NO_GPU)
        return NVML_ERROR_NOT_FOUND;
    *handle = handle_of(gpu, mig);
    return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlDeviceGetUUID(nvmlDevice_t handle, char *uuid, unsigned int length)
{
    struct device device;
    char word[FIELD_MAX + 2];

    TRY(enter_device(__func__, handle, &device));
    TRY(device_uuid(&device, word));
    return copy_out(word, uuid, length);
}

/* The file name_raw holds any bytes, such as those of a name that is no text. */
static bool read_raw_name(const struct device *device, char *name)
{
    char path[PATH_MAX];
    size_t length;

    return join(path, device->path, "name_raw") && read_bytes(path, name, &length) == FILE_OK;
}

EXPORT nvmlReturn_t nvmlDeviceGetName(nvmlDevice_t handle, char *name, unsigned int length)
{
    struct device device;
    char word[FIELD_MAX + 2];

    TRY(enter_device(__func__, handle, &device));
    if (read_raw_name(&device, word))
        return copy_out(word, name, length);
    TRY(read_word(device.path, "name",
                  device.mig == NO_MIG ? "NVIDIA H100 80GB HBM3" : "NVIDIA H100 80GB HBM3 MIG 1g.10gb",
                  word));
    return copy_out(word, name, length);
}

EXPORT nvmlReturn_t nvmlDeviceGetMinorNumber(nvmlDevice_t handle, unsigned int *minor)
{
    struct device device;
    unsigned long long number;

    TRY(enter_whole_gpu(__func__, handle, &device));
    if (minor == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    TRY(read_number(device.path, "minor", (unsigned int)device.gpu, UINT_MAX, &number));
    *minor = (unsigned int)number;
    return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlDeviceGetIndex(nvmlDevice_t handle, unsigned int *index)
{
    struct device device;
    int gpus[MAX_GPUS], count;

    TRY(enter_device(__func__, handle, &device));
    if (index == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    if (device.mig != NO_MIG) {
        *index = (unsigned int)device.mig;
        return NVML_SUCCESS;
    }
    count = list_gpus(device.node, gpus);
    for (int i = 0; i < count; i++)
        if (gpus[i] == device.gpu) {
            *index = (unsigned int)i;
            return NVML_SUCCESS;
        }
    return NVML_ERROR_GPU_IS_LOST;
}
