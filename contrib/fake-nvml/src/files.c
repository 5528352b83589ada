/* Small, strict readers of state files. Whatever is not understood is an error, never a guess. */
#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fake.h"

bool join(char *out, const char *directory, const char *name)
{
    int length = snprintf(out, PATH_MAX, "%s/%s", directory, name);

    return length > 0 && length < PATH_MAX;
}

bool join_number(char *out, const char *directory, int number)
{
    char name[16];

    snprintf(name, sizeof name, "%d", number);
    return join(out, directory, name);
}

bool is_directory(const char *path)
{
    struct stat status;

    return stat(path, &status) == 0 && S_ISDIR(status.st_mode);
}

bool is_present(const char *directory, const char *name)
{
    char path[PATH_MAX];

    return join(path, directory, name) && access(path, F_OK) == 0;
}

/* O_NONBLOCK: a FIFO in the state must not hang the caller; it is then refused as not regular. */
static int open_regular(const char *path)
{
    struct stat status;
    int descriptor = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);

    if (descriptor >= 0 && (fstat(descriptor, &status) != 0 || !S_ISREG(status.st_mode))) {
        close(descriptor);
        errno = EINVAL;
        return -1;
    }
    return descriptor;
}

/* Reads at most FIELD_MAX bytes and a terminating zero; a longer file is bad. */
enum file_status read_bytes(const char *path, char *bytes, size_t *length)
{
    int descriptor = open_regular(path);
    ssize_t got = 1;

    *length = 0;
    if (descriptor < 0)
        return errno == ENOENT || errno == ENOTDIR || errno == ESRCH ? FILE_MISSING : FILE_BAD;
    while (got > 0 && *length <= FIELD_MAX) {
        got = read(descriptor, bytes + *length, FIELD_MAX + 1 - *length);
        if (got < 0 && errno == EINTR)
            got = 1;
        else if (got > 0)
            *length += (size_t)got;
        else if (got < 0 && errno == ESRCH) {
            close(descriptor);
            return FILE_MISSING;
        }
    }
    close(descriptor);
    bytes[*length > FIELD_MAX ? FIELD_MAX : *length] = '\0';
    return got < 0 || *length > FIELD_MAX ? FILE_BAD : FILE_OK;
}

/* As read_bytes, and only printable ASCII and white space are good; white space at the end goes. */
enum file_status read_text(const char *path, char *text)
{
    size_t length;
    enum file_status status = read_bytes(path, text, &length);

    if (status != FILE_OK)
        return status;
    for (size_t i = 0; i < length; i++)
        if (!isprint((unsigned char)text[i]) && !isspace((unsigned char)text[i]))
            return FILE_BAD;
    while (length > 0 && isspace((unsigned char)text[length - 1]))
        text[--length] = '\0';
    return FILE_OK;
}

/* A file of one line. A missing one reads as the fallback; a NULL fallback is NOT_SUPPORTED. */
nvmlReturn_t read_word(const char *directory, const char *name, const char *fallback, char *word)
{
    char path[PATH_MAX];
    enum file_status status;

    if (!join(path, directory, name))
        return NVML_ERROR_UNKNOWN;
    status = read_text(path, word);
    if (status == FILE_MISSING) {
        if (fallback == NULL)
            return NVML_ERROR_NOT_SUPPORTED;
        snprintf(word, FIELD_MAX, "%s", fallback);
        return NVML_SUCCESS;
    }
    if (status == FILE_BAD || word[0] == '\0' || strchr(word, '\n') != NULL)
        return NVML_ERROR_UNKNOWN;
    return strcmp(word, "n/a") == 0 ? NVML_ERROR_NOT_SUPPORTED : NVML_SUCCESS;
}

nvmlReturn_t read_number(const char *directory, const char *name, unsigned long long fallback,
                         unsigned long long limit, unsigned long long *number)
{
    char word[FIELD_MAX + 2];
    nvmlReturn_t code = read_word(directory, name, fallback == NO_DEFAULT ? NULL : "", word);

    if (code != NVML_SUCCESS)
        return code;
    if (word[0] == '\0') {
        *number = fallback;
        return NVML_SUCCESS;
    }
    return parse_number(word, limit, number) ? NVML_SUCCESS : NVML_ERROR_UNKNOWN;
}

/* Decimal digits only: no sign, no space, at most `limit`. */
bool parse_number(const char *text, unsigned long long limit, unsigned long long *number)
{
    unsigned long long value = 0;

    if (*text == '\0' || strlen(text) > 18)
        return false;
    for (; *text != '\0'; text++) {
        if (!isdigit((unsigned char)*text))
            return false;
        value = value * 10 + (unsigned long long)(*text - '0');
    }
    *number = value;
    return value <= limit;
}

/* A directory name: canonical decimal below the limit ("7", not "07"). */
bool parse_index(const char *text, int limit, int *index)
{
    unsigned long long value;

    if ((text[0] == '0' && text[1] != '\0') || !parse_number(text, (unsigned long long)limit - 1, &value))
        return false;
    *index = (int)value;
    return true;
}

/* The next line that is not empty, or NULL; cuts the text in place. */
char *next_line(char **cursor)
{
    char *line;

    while ((line = strsep(cursor, "\n")) != NULL) {
        line[strcspn(line, "\r")] = '\0';
        if (*line != '\0')
            return line;
    }
    return NULL;
}

/* Cuts "key=value" and returns the value, or NULL when there is no "=". */
char *split_value(char *line)
{
    char *equals = strchr(line, '=');

    if (equals == NULL)
        return NULL;
    *equals = '\0';
    return equals + 1;
}

nvmlReturn_t copy_out(const char *text, char *buffer, unsigned int length)
{
    size_t size = strlen(text) + 1;

    if (buffer == NULL)
        return NVML_ERROR_INVALID_ARGUMENT;
    if (size > length)
        return NVML_ERROR_INSUFFICIENT_SIZE;
    memcpy(buffer, text, size);
    return NVML_SUCCESS;
}
