/* MIG: a GPU with a directory mig/ is in MIG mode; mig/<i>/ is its device i. */
#include "fake.h"

#define MAX_REAL_MIG 7                /* the most that hardware of today can be cut into */

nvmlReturn_t mig_instances(const struct device *device, unsigned int *gpu_instance,
                           unsigned int *compute_instance)
{
    unsigned long long gpu, compute;

    TRY(read_number(device->path, "gpu_instance_id", (unsigned int)device->mig + 1, MAX_MIG, &gpu));
    TRY(read_number(device->path, "compute_instance_id", 0, MAX_MIG, &compute));
    *gpu_instance = (unsigned int)gpu;
    *compute_instance = (unsigned int)compute;
    return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlDeviceGetMigMode(nvmlDevice_t handle, unsigned int *current,
                                         unsigned int *pending)
{
    struct device device;

    TRY(enter_whole_gpu(__func__, handle, &device));
    if (current == NULL || pending == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    if (is_present(device.path, "mig_unsupported"))
        return NVML_ERROR_NOT_SUPPORTED;
    *current = *pending = has_mig(&device);
    return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlDeviceGetMaxMigDeviceCount(nvmlDevice_t handle, unsigned int *count)
{
    struct device device;

    TRY(enter_whole_gpu(__func__, handle, &device));
    if (count == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    *count = has_mig(&device) ? MAX_REAL_MIG : 0;
    return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlDeviceGetMigDeviceHandleByIndex(nvmlDevice_t handle, unsigned int index,
                                                        nvmlDevice_t *mig)
{
    struct device device, part;

    TRY(enter_whole_gpu(__func__, handle, &device));
    if (mig == NULL || index >= MAX_REAL_MIG)
        return NVML_ERROR_INVALID_ARGUMENT;
    if (!open_device(device.node, device.gpu, (int)index, &part))
        return NVML_ERROR_NOT_FOUND;
    *mig = handle_of(device.gpu, (int)index);
    return NVML_SUCCESS;
}

static nvmlReturn_t enter_mig(const char *function, nvmlDevice_t handle, struct device *device)
{
    TRY(enter_device(function, handle, device));
    return device->mig == NO_MIG ? NVML_ERROR_INVALID_ARGUMENT : NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlDeviceGetDeviceHandleFromMigDeviceHandle(nvmlDevice_t mig,
                                                                 nvmlDevice_t *handle)
{
    struct device device;

    TRY(enter_mig(__func__, mig, &device));
    if (handle == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    *handle = handle_of(device.gpu, NO_MIG);
    return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlDeviceIsMigDeviceHandle(nvmlDevice_t handle, unsigned int *is_mig)
{
    struct device device;

    TRY(enter_device(__func__, handle, &device));
    if (is_mig == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    *is_mig = device.mig != NO_MIG;
    return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlDeviceGetGpuInstanceId(nvmlDevice_t handle, unsigned int *id)
{
    struct device device;
    unsigned int other;

    TRY(enter_mig(__func__, handle, &device));
    return id == NULL ? NVML_ERROR_INVALID_ARGUMENT : mig_instances(&device, id, &other);
}

EXPORT nvmlReturn_t nvmlDeviceGetComputeInstanceId(nvmlDevice_t handle, unsigned int *id)
{
    struct device device;
    unsigned int other;

    TRY(enter_mig(__func__, handle, &device));
    return id == NULL ? NVML_ERROR_INVALID_ARGUMENT : mig_instances(&device, &other, id);
}
