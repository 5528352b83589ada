/* What comes before the work of every call: initialised, node there, faults, device there. */
#include <stdatomic.h>

#include "fake.h"

static atomic_int users;

nvmlReturn_t enter_init(const char *function)
{
    char node[PATH_MAX];

    if (!find_node(node))
        return NVML_ERROR_DRIVER_NOT_LOADED;
    TRY(inject(node, function, NO_GPU, NO_MIG));
    atomic_fetch_add(&users, 1);
    return NVML_SUCCESS;
}

nvmlReturn_t leave_init(const char *function)
{
    char node[PATH_MAX];
    int now = atomic_load(&users);

    if (find_node(node))
        TRY(inject(node, function, NO_GPU, NO_MIG));
    while (now > 0)
        if (atomic_compare_exchange_weak(&users, &now, now - 1))
            return NVML_SUCCESS;
    return NVML_ERROR_UNINITIALIZED;
}

nvmlReturn_t enter_lookup(char *node)
{
    if (atomic_load(&users) == 0)
        return NVML_ERROR_UNINITIALIZED;
    return find_node(node) ? NVML_SUCCESS : NVML_ERROR_DRIVER_NOT_LOADED;
}

nvmlReturn_t enter(const char *function, char *node)
{
    TRY(enter_lookup(node));
    return inject(node, function, NO_GPU, NO_MIG);
}

nvmlReturn_t enter_device(const char *function, nvmlDevice_t handle, struct device *device)
{
    char node[PATH_MAX];
    int gpu, mig;

    TRY(enter_lookup(node));
    if (!decode_handle(handle, &gpu, &mig))
        return NVML_ERROR_INVALID_ARGUMENT;
    TRY(inject(node, function, gpu, mig));
    return open_device(node, gpu, mig, device) ? NVML_SUCCESS : NVML_ERROR_GPU_IS_LOST;
}

nvmlReturn_t enter_whole_gpu(const char *function, nvmlDevice_t handle, struct device *device)
{
    TRY(enter_device(function, handle, device));
    return device->mig == NO_MIG ? NVML_SUCCESS : NVML_ERROR_NOT_SUPPORTED;
}
