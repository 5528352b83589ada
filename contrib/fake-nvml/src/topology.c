/* What Slurm's AutoDetect=nvml asks beside names and numbers: CPUs, NVLinks, clocks, MIG sizes. */
#include "fake.h"

#define DEFAULT_MEMORY_MB 9856        /* as of a MIG device in memory.c */

EXPORT nvmlReturn_t nvmlDeviceGetCpuAffinity(nvmlDevice_t handle, unsigned int size,
                                             unsigned long *cpus)
{
    struct device device;

    TRY(enter_device(__func__, handle, &device));
    if (cpus == NULL || size == 0)
        return NVML_ERROR_INVALID_ARGUMENT;
    for (unsigned int i = 0; i < size; i++)
        cpus[i] = 0;
    cpus[0] = 1;                      /* CPU 0: every host has it */
    return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlDeviceGetNvLinkState(nvmlDevice_t handle, unsigned int link,
                                             unsigned int *is_active)
{
    struct device device;

    (void)link;
    TRY(enter_whole_gpu(__func__, handle, &device));
    return is_active == NULL ? NVML_ERROR_INVALID_ARGUMENT : NVML_ERROR_NOT_SUPPORTED;
}

EXPORT nvmlReturn_t nvmlDeviceGetNvLinkRemotePciInfo_v2(nvmlDevice_t handle, unsigned int link,
                                                        void *pci)
{
    struct device device;

    (void)link;
    TRY(enter_whole_gpu(__func__, handle, &device));
    return pci == NULL ? NVML_ERROR_INVALID_ARGUMENT : NVML_ERROR_NOT_SUPPORTED;
}

EXPORT nvmlReturn_t nvmlDeviceGetSupportedMemoryClocks(nvmlDevice_t handle, unsigned int *count,
                                                       unsigned int *clocks_mhz)
{
    struct device device;

    TRY(enter_device(__func__, handle, &device));
    return count == NULL || clocks_mhz == NULL ? NVML_ERROR_INVALID_ARGUMENT
                                               : NVML_ERROR_NOT_SUPPORTED;
}

EXPORT nvmlReturn_t nvmlDeviceGetSupportedGraphicsClocks(nvmlDevice_t handle,
                                                         unsigned int memory_mhz,
                                                         unsigned int *count,
                                                         unsigned int *clocks_mhz)
{
    struct device device;

    (void)memory_mhz;
    TRY(enter_device(__func__, handle, &device));
    return count == NULL || clocks_mhz == NULL ? NVML_ERROR_INVALID_ARGUMENT
                                               : NVML_ERROR_NOT_SUPPORTED;
}

EXPORT nvmlReturn_t nvmlDeviceGetAttributes_v2(nvmlDevice_t handle,
                                               nvmlDeviceAttributes_t *attributes)
{
    struct device device;
    unsigned long long slices, memory_mb;

    TRY(enter_device(__func__, handle, &device));
    if (attributes == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    if (device.mig == NO_MIG)
        return NVML_ERROR_NOT_SUPPORTED;
    TRY(read_number(device.path, "slices", 1, MAX_MIG, &slices));
    TRY(read_number(device.path, "memory_total_mb", DEFAULT_MEMORY_MB, MB_LIMIT, &memory_mb));
    *attributes = (nvmlDeviceAttributes_t){
        .multiprocessorCount = 14 * (unsigned int)slices,
        .gpuInstanceSliceCount = (unsigned int)slices,
        .computeInstanceSliceCount = (unsigned int)slices,
        .memorySizeMB = memory_mb,
    };
    return NVML_SUCCESS;
}
