/* Modes, errors and health: mostly one number per file. */
#include <stdio.h>

#include "fake.h"

static nvmlReturn_t read_unsigned(const struct device *device, const char *name,
                                  unsigned long long fallback, unsigned int *value)
{
    unsigned long long number;

    TRY(read_number(device->path, name, fallback, UINT_MAX, &number));
    *value = (unsigned int)number;
    return NVML_SUCCESS;
}

static nvmlReturn_t one_number(const char *function, nvmlDevice_t handle, const char *name,
                               unsigned long long fallback, unsigned int *value)
{
    struct device device;

    TRY(enter_whole_gpu(function, handle, &device));
    if (value == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    return read_unsigned(&device, name, fallback, value);
}

EXPORT nvmlReturn_t nvmlDeviceGetComputeMode(nvmlDevice_t handle, unsigned int *mode)
{
    return one_number(__func__, handle, "compute_mode", 0, mode);
}

EXPORT nvmlReturn_t nvmlDeviceGetPersistenceMode(nvmlDevice_t handle, unsigned int *mode)
{
    return one_number(__func__, handle, "persistence_mode", 1, mode);
}

/* GPUs that remap rows (Ampere and later) retire no pages: without a file, not supported. */
EXPORT nvmlReturn_t nvmlDeviceGetRetiredPagesPendingStatus(nvmlDevice_t handle, unsigned int *value)
{
    return one_number(__func__, handle, "retired_pending", NO_DEFAULT, value);
}

EXPORT nvmlReturn_t nvmlDeviceGetEccMode(nvmlDevice_t handle, unsigned int *current,
                                         unsigned int *pending)
{
    if (pending == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    TRY(one_number(__func__, handle, "ecc_mode", 1, current));
    *pending = *current;
    return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlDeviceGetUtilizationRates(nvmlDevice_t handle, nvmlUtilization_t *rates)
{
    struct device device;

    TRY(enter_whole_gpu(__func__, handle, &device));
    if (rates == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    if (has_mig(&device))
        return NVML_ERROR_NOT_SUPPORTED;
    TRY(read_unsigned(&device, "utilization_gpu", 0, &rates->gpu));
    return read_unsigned(&device, "utilization_memory", 0, &rates->memory);
}

EXPORT nvmlReturn_t nvmlDeviceGetRemappedRows(nvmlDevice_t handle, unsigned int *corrected,
                                              unsigned int *uncorrected, unsigned int *pending,
                                              unsigned int *failure)
{
    struct device device;

    TRY(enter_whole_gpu(__func__, handle, &device));
    if (corrected == NULL || uncorrected == NULL || pending == NULL || failure == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    TRY(read_unsigned(&device, "remap_corrected", 0, corrected));
    TRY(read_unsigned(&device, "remap_uncorrected", 0, uncorrected));
    TRY(read_unsigned(&device, "remap_pending", 0, pending));
    return read_unsigned(&device, "remap_failure", 0, failure);
}

/* error: 0 corrected, 1 uncorrected; counter: 0 volatile, 1 aggregate. */
static nvmlReturn_t ecc_errors(const struct device *device, unsigned int error,
                               unsigned int counter, unsigned long long *count)
{
    char name[64];
    unsigned int mode;

    if (error > 1 || counter > 1)
        return NVML_ERROR_INVALID_ARGUMENT;
    TRY(read_unsigned(device, "ecc_mode", 1, &mode));
    if (mode == 0)
        return NVML_ERROR_NOT_SUPPORTED;
    snprintf(name, sizeof name, "ecc_%s_%s", error == 0 ? "corrected" : "uncorrected",
             counter == 0 ? "volatile" : "aggregate");
    return read_number(device->path, name, 0, ~0ull >> 1, count);
}

EXPORT nvmlReturn_t nvmlDeviceGetTotalEccErrors(nvmlDevice_t handle, unsigned int error,
                                                unsigned int counter, unsigned long long *count)
{
    struct device device;

    TRY(enter_whole_gpu(__func__, handle, &device));
    return count == NULL ? NVML_ERROR_INVALID_ARGUMENT
                         : ecc_errors(&device, error, counter, count);
}

/* All errors of the state are in the device's memory. */
EXPORT nvmlReturn_t nvmlDeviceGetMemoryErrorCounter(nvmlDevice_t handle, unsigned int error,
                                                    unsigned int counter, unsigned int location,
                                                    unsigned long long *count)
{
    struct device device;

    TRY(enter_whole_gpu(__func__, handle, &device));
    if (count == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    TRY(ecc_errors(&device, error, counter, count));
    if (location != NVML_LOCATION_DEVICE_MEMORY)
        *count = 0;
    return NVML_SUCCESS;
}

static nvmlReturn_t number_field(const struct device *device, const char *name,
                                 unsigned long long fallback, nvmlFieldValue_t *field)
{
    field->valueType = NVML_VALUE_TYPE_UNSIGNED_INT;
    return read_unsigned(device, name, fallback, &field->value.uiVal);
}

static nvmlReturn_t ecc_field(const struct device *device, nvmlFieldValue_t *field)
{
    unsigned int which = field->fieldId - NVML_FI_DEV_ECC_SBE_VOL_TOTAL;

    field->valueType = NVML_VALUE_TYPE_UNSIGNED_LONG_LONG;
    return ecc_errors(device, which & 1, which >> 1, &field->value.ullVal);
}

static nvmlReturn_t fill_field(const struct device *device, nvmlFieldValue_t *field)
{
    switch (field->fieldId) {
    case NVML_FI_DEV_ECC_CURRENT:
    case NVML_FI_DEV_ECC_PENDING:
        return number_field(device, "ecc_mode", 1, field);
    case NVML_FI_DEV_ECC_SBE_VOL_TOTAL:
    case NVML_FI_DEV_ECC_DBE_VOL_TOTAL:
    case NVML_FI_DEV_ECC_SBE_AGG_TOTAL:
    case NVML_FI_DEV_ECC_DBE_AGG_TOTAL:
        return ecc_field(device, field);
    case NVML_FI_DEV_RETIRED_PENDING:
        return number_field(device, "retired_pending", NO_DEFAULT, field);
    case NVML_FI_DEV_REMAPPED_COR:
        return number_field(device, "remap_corrected", 0, field);
    case NVML_FI_DEV_REMAPPED_UNC:
        return number_field(device, "remap_uncorrected", 0, field);
    case NVML_FI_DEV_REMAPPED_PENDING:
        return number_field(device, "remap_pending", 0, field);
    case NVML_FI_DEV_REMAPPED_FAILURE:
        return number_field(device, "remap_failure", 0, field);
#ifndef FAKE_NVML_OLD
    case NVML_FI_DEV_GET_GPU_RECOVERY_ACTION:
        return number_field(device, "recovery_action", 0, field);
#endif
    default:
        return NVML_ERROR_NOT_SUPPORTED;
    }
}

/* The call succeeds as a whole; each field has a code of its own. */
EXPORT nvmlReturn_t nvmlDeviceGetFieldValues(nvmlDevice_t handle, int count, nvmlFieldValue_t *fields)
{
    struct device device;

    TRY(enter_whole_gpu(__func__, handle, &device));
    if (fields == NULL || count <= 0)
        return NVML_ERROR_INVALID_ARGUMENT;
    for (int i = 0; i < count; i++) {
        fields[i].timestamp = fields[i].latencyUsec = 0;
        fields[i].value.ullVal = 0;
        fields[i].nvmlReturn = fill_field(&device, &fields[i]);
    }
    return NVML_SUCCESS;
}
