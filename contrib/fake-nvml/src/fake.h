/* What the files of this library share. Nothing is cached: each call reads the state afresh. */
#ifndef FAKE_H
#define FAKE_H

#include <limits.h>
#include <stdbool.h>
#include <stddef.h>

#include "nvml_abi.h"

#define EXPORT __attribute__((visibility("default")))
#define MAX_GPUS 256
#define MAX_MIG 16
#define NO_MIG (-1)
#define NO_GPU (-1)
#define FIELD_MAX 4096                /* longest state file, in bytes */
#define MB_LIMIT (1ull << 32)         /* no amount of memory in the state exceeds this */
#define MB_TO_BYTES(mb) ((unsigned long long)(mb) << 20)

/* One GPU, or one MIG device of it, as the state directory has it now. */
struct device {
    int gpu;                          /* name of its directory, not its NVML index */
    int mig;                          /* NO_MIG for a whole GPU */
    char node[PATH_MAX];
    char path[PATH_MAX];              /* its directory */
};

/* One announced process. memory_mb is meaningful only when memory_known. */
struct process {
    unsigned int pid;
    unsigned long long memory_mb;
    bool memory_known;
    unsigned int kinds;
    unsigned int gpu_instance, compute_instance;
};

enum { KIND_COMPUTE = 1, KIND_GRAPHICS = 2, KIND_MPS = 4 };

struct process_list {
    struct process *items;
    size_t count, capacity;
};

/* files.c: one file at a time */
enum file_status { FILE_OK, FILE_MISSING, FILE_BAD };
bool join(char *out, const char *directory, const char *name);
bool join_number(char *out, const char *directory, int number);
bool is_directory(const char *path);
bool is_present(const char *directory, const char *name);
enum file_status read_text(const char *path, char *text);
enum file_status read_bytes(const char *path, char *bytes, size_t *length);
nvmlReturn_t read_word(const char *directory, const char *name, const char *fallback, char *word);
nvmlReturn_t read_number(const char *directory, const char *name, unsigned long long fallback,
                         unsigned long long limit, unsigned long long *number);
bool parse_number(const char *text, unsigned long long limit, unsigned long long *number);
bool parse_index(const char *text, int limit, int *index);
char *next_line(char **cursor);
char *split_value(char *line);
nvmlReturn_t copy_out(const char *text, char *buffer, unsigned int length);

#define NO_DEFAULT (~0ull)            /* read_number: a missing file means NOT_SUPPORTED */

/* state.c: where the node's state is, and its devices */
bool find_node(char *node);
int list_numbered(const char *directory, int limit, int *numbers);
int list_gpus(const char *node, int *gpus);
nvmlDevice_t handle_of(int gpu, int mig);
bool decode_handle(nvmlDevice_t handle, int *gpu, int *mig);
bool open_device(const char *node, int gpu, int mig, struct device *device);
bool has_mig(const struct device *device);

/* inject.c: faults */
nvmlReturn_t inject(const char *node, const char *function, int gpu, int mig);

/* enter.c: what every exported call does first */
nvmlReturn_t enter_init(const char *function);
nvmlReturn_t leave_init(const char *function);
nvmlReturn_t enter_lookup(char *node);            /* the caller calls inject() once it has the GPU */
nvmlReturn_t enter(const char *function, char *node);
nvmlReturn_t enter_device(const char *function, nvmlDevice_t handle, struct device *device);
nvmlReturn_t enter_whole_gpu(const char *function, nvmlDevice_t handle, struct device *device);

/* mig.c */
nvmlReturn_t mig_instances(const struct device *device, unsigned int *gpu_instance,
                           unsigned int *compute_instance);

/* processes.c */
nvmlReturn_t list_processes(const struct device *device, struct process_list *list);

/* identity.c */
nvmlReturn_t device_uuid(const struct device *device, char *uuid);

#define TRY(expression)                        \
    do {                                       \
        nvmlReturn_t try_code = (expression);  \
        if (try_code != NVML_SUCCESS)          \
            return try_code;                   \
    } while (0)

#endif
