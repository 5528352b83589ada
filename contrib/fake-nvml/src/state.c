/* Finds the state directory, the node that is meant, and the directories of its devices. */
#include <dirent.h>
#include <dlfcn.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "fake.h"

/* A handle is the address of one of these bytes: its offset says which device it is. */
#define HANDLES_PER_GPU (1 + MAX_MIG)
static char handles[MAX_GPUS * HANDLES_PER_GPU];

nvmlDevice_t handle_of(int gpu, int mig)
{
    return (nvmlDevice_t)(void *)&handles[gpu * HANDLES_PER_GPU + 1 + mig];
}

bool decode_handle(nvmlDevice_t handle, int *gpu, int *mig)
{
    uintptr_t offset = (uintptr_t)handle - (uintptr_t)handles;

    if (offset >= sizeof handles)
        return false;
    *gpu = (int)offset / HANDLES_PER_GPU;
    *mig = (int)offset % HANDLES_PER_GPU - 1;
    return true;
}

static bool state_beside(const char *file, char *state)
{
    char directory[PATH_MAX];
    char *slash;

    if (snprintf(directory, sizeof directory, "%s", file) >= PATH_MAX)
        return false;
    slash = strrchr(directory, '/');
    if (slash == NULL)
        strcpy(directory, ".");
    else
        *slash = '\0';
    return join(state, directory, "state") && is_directory(state);
}

/* Beside the library as it was loaded; else, when that is a symbolic link, beside its target. */
static bool find_state(char *state)
{
    const char *given = getenv("FAKE_NVML_STATE");
    char real[PATH_MAX];
    Dl_info library;

    if (given != NULL && *given != '\0')
        return snprintf(state, PATH_MAX, "%s", given) < PATH_MAX && is_directory(state);
    if (dladdr((void *)handles, &library) == 0 || library.dli_fname == NULL)
        return false;
    if (state_beside(library.dli_fname, state))
        return true;
    return realpath(library.dli_fname, real) != NULL && state_beside(real, state);
}

static bool is_node_name(const char *name)
{
    return name != NULL && *name != '\0' && *name != '.' && strchr(name, '/') == NULL;
}

static bool node_directory(const char *state, const char *name, char *node)
{
    return is_node_name(name) && join(node, state, name) && is_directory(node);
}

bool find_node(char *node)
{
    const char *given = getenv("FAKE_NVML_NODE");
    char state[PATH_MAX], word[FIELD_MAX + 2];

    if (!find_state(state))
        return false;
    if (given != NULL && *given != '\0')
        return node_directory(state, given, node);
    if (node_directory(state, getenv("SLURMD_NODENAME"), node))
        return true;
    if (read_word(state, "default-node", "default", word) != NVML_SUCCESS)
        return false;
    return node_directory(state, word, node);
}

static int compare_numbers(const void *left, const void *right)
{
    return *(const int *)left - *(const int *)right;
}

/* The entries of a directory whose names are numbers, in order; 0 when there is no directory. */
int list_numbered(const char *directory, int limit, int *numbers)
{
    DIR *stream = opendir(directory);
    struct dirent *entry;
    int count = 0;

    if (stream == NULL)
        return 0;
    while (count < limit && (entry = readdir(stream)) != NULL)
        if (parse_index(entry->d_name, limit, &numbers[count]))
            count++;
    closedir(stream);
    qsort(numbers, (size_t)count, sizeof *numbers, compare_numbers);
    return count;
}

int list_gpus(const char *node, int *gpus)
{
    char directory[PATH_MAX];

    return join(directory, node, "gpus") ? list_numbered(directory, MAX_GPUS, gpus) : 0;
}

bool open_device(const char *node, int gpu, int mig, struct device *device)
{
    char directory[PATH_MAX];

    device->gpu = gpu;
    device->mig = mig;
    if (snprintf(device->node, PATH_MAX, "%s", node) >= PATH_MAX)
        return false;
    if (!join(directory, node, "gpus") || !join_number(device->path, directory, gpu))
        return false;
    if (mig != NO_MIG) {
        if (!join(directory, device->path, "mig") || !join_number(device->path, directory, mig))
            return false;
    }
    return is_directory(device->path);
}

bool has_mig(const struct device *device)
{
    return device->mig == NO_MIG && is_present(device->path, "mig");
}
