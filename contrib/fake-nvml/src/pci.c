/* PCI addresses. */
#include <stdio.h>
#include <string.h>

#include "fake.h"

struct address {
    unsigned int domain, bus, device, function;
};

static bool parse_address(const char *text, struct address *address)
{
    int end = 0;

    memset(address, 0, sizeof *address);
    if (strlen(text) > 20)
        return false;
    if (sscanf(text, "%x:%x:%x.%x%n", &address->domain, &address->bus, &address->device,
               &address->function, &end) != 4) {
        address->domain = 0;
        if (sscanf(text, "%x:%x.%x%n", &address->bus, &address->device, &address->function, &end) != 3)
            return false;
    }
    return text[end] == '\0' && address->bus <= 0xff && address->device <= 0x1f
           && address->function <= 7;
}

/* Without a pci_bus_id file: buses 0x10, 0x11, … in the order of the directories. */
static nvmlReturn_t device_address(const struct device *device, struct address *address)
{
    char made[40], word[FIELD_MAX + 2];

    snprintf(made, sizeof made, "%08X:%02X:00.0", (unsigned int)device->gpu / 0xe0,
             0x10 + (unsigned int)device->gpu % 0xe0);
    TRY(read_word(device->path, "pci_bus_id", made, word));
    return parse_address(word, address) ? NVML_SUCCESS : NVML_ERROR_UNKNOWN;
}

/* Only _v3: the structure of the older symbols is shorter. */
EXPORT nvmlReturn_t nvmlDeviceGetPciInfo_v3(nvmlDevice_t handle, nvmlPciInfo_t *pci)
{
    struct device device;
    struct address address;

    TRY(enter_whole_gpu(__func__, handle, &device));
    if (pci == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    TRY(device_address(&device, &address));
    memset(pci, 0, sizeof *pci);
    pci->domain = address.domain;
    pci->bus = address.bus;
    pci->device = address.device;
    pci->pciDeviceId = 0x233010de;
    pci->pciSubSystemId = 0x16c110de;
    snprintf(pci->busIdLegacy, sizeof pci->busIdLegacy, "%04X:%02X:%02X.%X",
             address.domain & 0xffff, address.bus & 0xff, address.device & 0x1f,
             address.function & 7);
    snprintf(pci->busId, sizeof pci->busId, "%08X:%02X:%02X.%X", address.domain, address.bus,
             address.device, address.function);
    return NVML_SUCCESS;
}

static bool is_at(const char *node, int gpu, const struct address *wanted)
{
    struct device device;
    struct address address;

    return open_device(node, gpu, NO_MIG, &device)
           && device_address(&device, &address) == NVML_SUCCESS
           && memcmp(&address, wanted, sizeof address) == 0;
}

static int find_address(const char *node, const struct address *wanted)
{
    int gpus[MAX_GPUS], count = list_gpus(node, gpus);

    for (int i = 0; i < count; i++)
        if (is_at(node, gpus[i], wanted))
            return gpus[i];
    return NO_GPU;
}

static nvmlReturn_t handle_by_address(const char *function, const char *text, nvmlDevice_t *handle)
{
    char node[PATH_MAX];
    struct address wanted;
    int gpu;

    TRY(enter_lookup(node));
    if (text == NULL || handle == NULL || !parse_address(text, &wanted))
        return NVML_ERROR_INVALID_ARGUMENT;
    gpu = find_address(node, &wanted);
    TRY(inject(node, function, gpu, NO_MIG));
    if (gpu == NO_GPU)
        return NVML_ERROR_NOT_FOUND;
    *handle = handle_of(gpu, NO_MIG);
    return NVML_SUCCESS;
}

EXPORT nvmlReturn_t nvmlDeviceGetHandleByPciBusId(const char *text, nvmlDevice_t *handle)
{
    return handle_by_address(__func__, text, handle);
}

EXPORT nvmlReturn_t nvmlDeviceGetHandleByPciBusId_v2(const char *text, nvmlDevice_t *handle)
{
    return handle_by_address(__func__, text, handle);
}
