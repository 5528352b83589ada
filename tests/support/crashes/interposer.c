/*
 * Kills, stops or fails a process at its N-th step. Loaded by LD_PRELOAD in tests alone.
 *
 * A step is a call of libc that changes something outside of the process: a file, a lock, a peer, another
 * process. Each step is counted before it is made, so a process that dies at step N has made N - 1 of them.
 * What a process may do is found here, and not named by a test: a step that is added to the product is
 * covered at once.
 *
 * The page is a file that a test maps too. A process takes it with `crash_take`, by the page's role; from then
 * on its steps count, and those of no other process: neither its children's nor its successors'.
 */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/file.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <unistd.h>

enum action { COUNT, KILL, STOP, FAIL_ONCE, FAIL_ALWAYS };
enum kind { FILES = 1, SOCKETS = 2, PROCESSES = 4 };

#define NAMES 4096
#define NAME 12
#define DESCRIPTORS 65536

struct page {
    char role[32];
    int32_t action, at, error, kinds; /* `kinds`: the kinds of steps that fail */
    int32_t taken, pid, count, hit;
    char names[NAMES][NAME]; /* the last byte is the kind */
};

static struct page *page;
static unsigned char locked[DESCRIPTORS];

int crash_take(const char *path, const char *role) {
    int file = syscall(SYS_openat, AT_FDCWD, path, O_RDWR | O_CLOEXEC);
    if (file < 0)
        return 0;
    struct page *found = mmap(NULL, sizeof *found, PROT_READ | PROT_WRITE, MAP_SHARED, file, 0);
    syscall(SYS_close, file);
    if (found == MAP_FAILED)
        return 0;
    int32_t nobody = 0;
    if (strcmp(found->role, role) ||
        !__atomic_compare_exchange_n(&found->taken, &nobody, 1, 0, __ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST)) {
        munmap(found, sizeof *found);
        return 0;
    }
    found->pid = getpid();
    page = found;
    return 1;
}

/* Count a step; returns whether it fails, with errno set. */
static int step(const char *name, int kind) {
    if (!page || page->pid != getpid())
        return 0;
    int number = __atomic_add_fetch(&page->count, 1, __ATOMIC_SEQ_CST);
    if (number <= NAMES) {
        strncpy(page->names[number - 1], name, NAME - 1);
        page->names[number - 1][NAME - 1] = kind;
    }
    int always = page->action == FAIL_ALWAYS && page->at && number >= page->at;
    if (number != page->at && !always)
        return 0;
    page->hit = 1;
    switch (page->action) {
    case KILL:
        syscall(SYS_kill, page->pid, SIGKILL);
        for (;;)
            pause();
    case STOP:
        syscall(SYS_kill, page->pid, SIGSTOP);
        return 0;
    case FAIL_ONCE:
    case FAIL_ALWAYS:
        if (!(kind & page->kinds)) {
            page->hit = always ? page->hit : 0;
            return 0;
        }
        errno = page->error;
        return 1;
    }
    return 0;
}

/* A disk that is full, or a peer that is gone; a pipe to nobody raises SIGPIPE, and has no error. */
static int kind_of(int fd) {
    struct stat found;
    if (!page || fstat(fd, &found))
        return 0;
    return S_ISREG(found.st_mode) ? FILES : S_ISSOCK(found.st_mode) ? SOCKETS : 0;
}

#define NEXT(type, name, parameters) \
    static type (*next) parameters;  \
    if (!next)                       \
        next = dlsym(RTLD_NEXT, name);

#define WRAP(type, name, kind, parameters, arguments) \
    type name parameters {                            \
        NEXT(type, #name, parameters)                 \
        if (step(#name, kind))                        \
            return -1;                                \
        return next arguments;                        \
    }

WRAP(ssize_t, write, kind_of(fd), (int fd, const void *data, size_t size), (fd, data, size))
WRAP(ssize_t, writev, kind_of(fd), (int fd, const struct iovec *data, int count), (fd, data, count))
WRAP(ssize_t, pwrite64, FILES, (int fd, const void *data, size_t size, off64_t at), (fd, data, size, at))
WRAP(int, rename, FILES, (const char *from, const char *to), (from, to))
WRAP(int, renameat, FILES, (int a, const char *from, int b, const char *to), (a, from, b, to))
WRAP(int, unlink, 0, (const char *path), (path))
WRAP(int, unlinkat, 0, (int at, const char *path, int flags), (at, path, flags))
WRAP(int, rmdir, 0, (const char *path), (path))
WRAP(int, mkdir, FILES, (const char *path, mode_t mode), (path, mode))
WRAP(int, mkdirat, FILES, (int at, const char *path, mode_t mode), (at, path, mode))
WRAP(int, link, FILES, (const char *from, const char *to), (from, to))
WRAP(int, linkat, FILES, (int a, const char *from, int b, const char *to, int flags), (a, from, b, to, flags))
WRAP(int, symlink, FILES, (const char *to, const char *path), (to, path))
WRAP(int, symlinkat, FILES, (const char *to, int at, const char *path), (to, at, path))
WRAP(int, mkfifo, FILES, (const char *path, mode_t mode), (path, mode))
WRAP(int, mknod, FILES, (const char *path, mode_t mode, dev_t device), (path, mode, device))
WRAP(int, chmod, FILES, (const char *path, mode_t mode), (path, mode))
WRAP(int, fchmod, FILES, (int fd, mode_t mode), (fd, mode))
WRAP(int, fchmodat, FILES, (int at, const char *path, mode_t mode, int flags), (at, path, mode, flags))
WRAP(int, chown, FILES, (const char *path, uid_t uid, gid_t gid), (path, uid, gid))
WRAP(int, fchown, FILES, (int fd, uid_t uid, gid_t gid), (fd, uid, gid))
WRAP(int, lchown, FILES, (const char *path, uid_t uid, gid_t gid), (path, uid, gid))
WRAP(int, ftruncate64, FILES, (int fd, off64_t size), (fd, size))
WRAP(int, truncate64, FILES, (const char *path, off64_t size), (path, size))
WRAP(int, utimensat, FILES, (int at, const char *path, const struct timespec times[2], int flags),
     (at, path, times, flags))
WRAP(int, fsync, FILES, (int fd), (fd))
WRAP(int, fdatasync, FILES, (int fd), (fd))
WRAP(ssize_t, send, SOCKETS, (int fd, const void *data, size_t size, int flags), (fd, data, size, flags))
WRAP(ssize_t, sendto, SOCKETS,
     (int fd, const void *data, size_t size, int flags, const struct sockaddr *address, socklen_t length),
     (fd, data, size, flags, address, length))
WRAP(ssize_t, sendmsg, SOCKETS, (int fd, const struct msghdr *message, int flags), (fd, message, flags))
WRAP(int, connect, SOCKETS, (int fd, const struct sockaddr *address, socklen_t length), (fd, address, length))
WRAP(int, bind, SOCKETS, (int fd, const struct sockaddr *address, socklen_t length), (fd, address, length))
WRAP(int, listen, SOCKETS, (int fd, int backlog), (fd, backlog))
WRAP(ssize_t, sendfile64, FILES, (int out, int in, off64_t *at, size_t size), (out, in, at, size))
WRAP(ssize_t, copy_file_range, FILES,
     (int in, off64_t *from, int out, off64_t *to, size_t size, unsigned flags),
     (in, from, out, to, size, flags))
WRAP(int, shutdown, 0, (int fd, int how), (fd, how))
WRAP(int, kill, 0, (pid_t pid, int number), (pid, number))
WRAP(int, killpg, 0, (pid_t pid, int number), (pid, number))
WRAP(pid_t, fork, PROCESSES, (void), ())
WRAP(int, execve, 0, (const char *path, char *const arguments[], char *const variables[]),
     (path, arguments, variables))

/* vfork returns twice on one stack, so no function can wrap it: who calls it gets fork. */
pid_t vfork(void) { return fork(); }

static int changes(int flags) { return flags & (O_CREAT | O_TRUNC); }

#define WRAP_OPEN(name)                                     \
    int name(const char *path, int flags, ...) {            \
        NEXT(int, #name, (const char *, int, ...))          \
        va_list rest;                                       \
        va_start(rest, flags);                              \
        mode_t mode = flags & O_CREAT ? va_arg(rest, int) : 0; \
        va_end(rest);                                       \
        if (changes(flags) && step("open", FILES))          \
            return -1;                                      \
        return next(path, flags, mode);                     \
    }
#define WRAP_OPENAT(name)                                   \
    int name(int at, const char *path, int flags, ...) {    \
        NEXT(int, #name, (int, const char *, int, ...))     \
        va_list rest;                                       \
        va_start(rest, flags);                              \
        mode_t mode = flags & O_CREAT ? va_arg(rest, int) : 0; \
        va_end(rest);                                       \
        if (changes(flags) && step("open", FILES))          \
            return -1;                                      \
        return next(at, path, flags, mode);                 \
    }
WRAP_OPEN(open)
WRAP_OPEN(open64)
WRAP_OPENAT(openat)
WRAP_OPENAT(openat64)

int flock(int fd, int how) {
    NEXT(int, "flock", (int, int))
    if (step(how & LOCK_UN ? "unlock" : "lock", 0))
        return -1;
    int result = next(fd, how);
    if (!result && fd < DESCRIPTORS)
        locked[fd] = !(how & LOCK_UN);
    return result;
}

int close(int fd) {
    NEXT(int, "close", (int))
    if (fd >= 0 && fd < DESCRIPTORS && locked[fd]) {
        locked[fd] = 0;
        step("unlock", 0);
    }
    return next(fd);
}

/* What has no function of its own in libc: a signal by a pidfd. */
long syscall(long number, ...) {
    static long (*next)(long, ...);
    if (!next)
        next = dlsym(RTLD_NEXT, "syscall");
    va_list rest;
    va_start(rest, number);
    long a = va_arg(rest, long), b = va_arg(rest, long), c = va_arg(rest, long);
    long d = va_arg(rest, long), e = va_arg(rest, long), f = va_arg(rest, long);
    va_end(rest);
    if (number == SYS_pidfd_send_signal)
        step("kill", 0);
    return next(number, a, b, c, d, e, f);
}

void _exit(int status) {
    static void (*next)(int) __attribute__((noreturn));
    if (!next)
        *(void **)&next = dlsym(RTLD_NEXT, "_exit");
    step("exit", 0);
    next(status);
}
