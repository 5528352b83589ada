/* Calls about the library and the node as a whole. */
#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "fake.h"

#ifdef FAKE_NVML_OLD
#define DRIVER_VERSION "470.256.02"
#define CUDA_VERSION 11040
#else
#define DRIVER_VERSION "570.124.06"
#define CUDA_VERSION 12080
#endif

EXPORT nvmlReturn_t nvmlInit(void)
{
    return enter_init(__func__);
}

EXPORT nvmlReturn_t nvmlInit_v2(void)
{
    return enter_init(__func__);
}

EXPORT nvmlReturn_t nvmlInitWithFlags(unsigned int flags)
{
    (void)flags;
    return enter_init(__func__);
}

EXPORT nvmlReturn_t nvmlShutdown(void)
{
    return leave_init(__func__);
}

EXPORT const char *nvmlErrorString(nvmlReturn_t result)
{
    static const char *const texts[] = {
        "Success", "Uninitialized", "Invalid Argument", "Not Supported", "Insufficient Permissions",
        "Already Initialized", "Not Found", "Insufficient Size", "Insufficient External Power",
        "Driver Not Loaded", "Timeout", "Interrupt Request Issue", "NVML Shared Library Not Found",
        "Function Not Found", "Corrupted infoROM", "GPU is lost", "GPU requires reset",
        "The operating system has blocked the request", "Driver/library version mismatch",
        "In use by another client", "Insufficient Memory", "No data",
        "The requested vgpu operation is not available on target device, because ECC is enabled",
        "Insufficient resources", "Frequency not supported", "Argument version mismatch",
        "Deprecated", "Not ready", "No GPUs found", "Invalid state", "Reset type not supported",
    };

    if (result >= 0 && (size_t)result < sizeof texts / sizeof *texts)
        return texts[result];
    return "Unknown Error";
}

EXPORT nvmlReturn_t nvmlSystemGetDriverVersion(char *version, unsigned int length)
{
    char node[PATH_MAX], word[FIELD_MAX + 2];

    TRY(enter(__func__, node));
    TRY(read_word(node, "driver_version", DRIVER_VERSION, word));
    return copy_out(word, version, length);
}

EXPORT nvmlReturn_t nvmlSystemGetNVMLVersion(char *version, unsigned int length)
{
    char node[PATH_MAX], word[FIELD_MAX + 2], text[FIELD_MAX + 8];

    TRY(enter(__func__, node));
    TRY(read_word(node, "driver_version", DRIVER_VERSION, word));
    snprintf(text, sizeof text, "%d.%s", CUDA_VERSION / 1000, word);
    return copy_out(text, version, length);
}

static nvmlReturn_t cuda_version(const char *function, int *version)
{
    char node[PATH_MAX];
    unsigned long long number;

    TRY(enter(function, node));
    if (version == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    TRY(read_number(node, "cuda_driver_version", CUDA_VERSION, INT_MAX, &number));
    *version = (int)number;
    return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlSystemGetCudaDriverVersion(int *version)
{
    return cuda_version(__func__, version);
}

EXPORT nvmlReturn_t nvmlSystemGetCudaDriverVersion_v2(int *version)
{
    return cuda_version(__func__, version);
}

/* The program's name, argv[0], cut to what fits: the real call cuts too. */
EXPORT nvmlReturn_t nvmlSystemGetProcessName(unsigned int pid, char *name, unsigned int length)
{
    char node[PATH_MAX], path[64], bytes[FIELD_MAX + 2];
    size_t size;
    enum file_status status;

    TRY(enter(__func__, node));
    if (name == NULL || length == 0)
        return NVML_ERROR_INVALID_ARGUMENT;
    snprintf(path, sizeof path, "/proc/%u/cmdline", pid);
    status = read_bytes(path, bytes, &size);
    if (status == FILE_MISSING || size == 0)
        return NVML_ERROR_NOT_FOUND;
    for (char *byte = bytes; *byte != '\0'; byte++)
        if (!isprint((unsigned char)*byte))
            *byte = '?';
    snprintf(name, length, "%s", bytes);
    return NVML_SUCCESS;
}
