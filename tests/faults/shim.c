/* A disk that can be watched and that can fail: preloaded into the program under test, it stands around the calls that
 * change files below one directory.
 *
 *   SHIM_DIR    the directory, an absolute path without links; what lies elsewhere is never touched
 *   SHIM_LOG    each operation is appended to this file: see `struct head`, and log.rs, which reads it
 *   SHIM_FAIL   the number of the operation that fails, from 1; 0 or nothing: none
 *   SHIM_ERRNO  with this error; 0: it is a write of half of the bytes, or no failure if it is no write
 *   SHIM_ON     from then on all fail: with this error
 *
 * Operations are carried out and logged under one lock, so that the log has them in the order in which they took place.
 * Opening for writing is an operation, and is logged if it made or emptied a file. Reading is none.
 *
 * Limits: system calls that do not go through the C library are not seen; no mapping of a file is written to. */
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum kind { CREATE = 1, WRITE, TRUNCATE, SYNC, SYNC_DIR, RENAME, UNLINK, RMDIR, MKDIR, OPEN };

struct head {
    uint32_t kind, is_injected;
    uint64_t begin_ns, end_ns, inode, offset;
    int64_t result; /* below 0: -errno */
    uint32_t path_len, path2_len;
    uint64_t data_len;
};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static const char *dir;
static size_t dir_len;
static int log_fd = -1;
static long count, fail_at, fail_errno, fail_on;

#define REAL(name) ((__typeof__(&name))real(#name))

static void *real(const char *name) {
    void *found = dlsym(RTLD_NEXT, name);
    if (!found) abort();
    return found;
}

static long number(const char *name) {
    const char *text = getenv(name);
    return text ? atol(text) : 0;
}

__attribute__((constructor)) static void begin(void) {
    const char *log = getenv("SHIM_LOG");
    dir = getenv("SHIM_DIR");
    if (!dir) return;
    dir_len = strlen(dir);
    fail_at = number("SHIM_FAIL");
    fail_errno = number("SHIM_ERRNO");
    fail_on = number("SHIM_ON");
    if (log) log_fd = REAL(open)(log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
}

static int is_watched(const char *path) {
    return dir && strncmp(path, dir, dir_len) == 0 && (path[dir_len] == '/' || !path[dir_len]);
}

static int path_of(int fd, char *path) {
    char link[64];
    if (!dir) return 0;
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t len = readlink(link, path, PATH_MAX - 1);
    if (len < 0) return 0;
    path[len] = 0;
    return is_watched(path);
}

/* The absolute form of a path below a directory that is open. */
static int path_at(int at, const char *name, char *path) {
    if (!dir || !name) return 0;
    if (name[0] == '/')
        snprintf(path, PATH_MAX, "%s", name);
    else if (at == AT_FDCWD) {
        char here[PATH_MAX / 2];
        if (!getcwd(here, sizeof here)) return 0;
        snprintf(path, PATH_MAX, "%s/%s", here, name);
    } else {
        char above[PATH_MAX];
        if (!path_of(at, above)) return 0;
        snprintf(path, PATH_MAX, "%.2000s/%.2000s", above, name);
    }
    return is_watched(path);
}

static uint64_t now(void) {
    struct timespec time;
    clock_gettime(CLOCK_REALTIME, &time);
    return (uint64_t)time.tv_sec * 1000000000u + (uint64_t)time.tv_nsec;
}

/* One operation. `enter` takes the lock and says whether it is to fail; `leave` logs it and gives the lock back. */
struct op {
    struct head head;
    int fails, halves;
};

static struct op enter(enum kind kind) {
    struct op op = {.head = {.kind = kind}};
    pthread_mutex_lock(&lock);
    count++;
    if (fail_at && count == fail_at) {
        if (fail_errno) op.fails = (int)fail_errno;
        else if (kind == WRITE) op.halves = 1;
    } else if (fail_at && count > fail_at && fail_on) {
        op.fails = (int)fail_on;
    }
    op.head.is_injected = op.fails || op.halves;
    op.head.begin_ns = now();
    return op;
}

static long leave(struct op *op, long result, int is_logged, const char *path, const char *path2, const void *data) {
    int error = op->fails ? op->fails : errno;
    op->head.end_ns = now();
    op->head.result = result < 0 ? -error : result;
    op->head.path_len = (uint32_t)strlen(path);
    op->head.path2_len = path2 ? (uint32_t)strlen(path2) : 0;
    op->head.data_len = data && result > 0 ? (uint64_t)result : 0;
    if (log_fd >= 0 && (is_logged || op->head.is_injected)) {
        struct iovec parts[] = {{&op->head, sizeof op->head},
                                {(void *)path, op->head.path_len},
                                {(void *)path2, op->head.path2_len},
                                {(void *)data, op->head.data_len}};
        if (REAL(writev)(log_fd, parts, 4) < 0) abort();
    }
    pthread_mutex_unlock(&lock);
    errno = error;
    return result;
}

static uint64_t inode_of(int fd) {
    struct stat there;
    return fstat(fd, &there) == 0 ? there.st_ino : 0;
}

static int open_watched(int at, const char *path, const char *name, int flags, mode_t mode) {
    struct stat there;
    struct op op = enter(OPEN);
    int was_there = lstat(path, &there) == 0, fd = -1;
    if (!op.fails) fd = REAL(openat)(at, name, flags, mode);
    if (fd >= 0) {
        int error = errno;
        op.head.inode = inode_of(fd);
        errno = error;
    }
    if (fd >= 0 && !was_there) op.head.kind = CREATE;
    if (fd >= 0 && was_there && (flags & O_TRUNC)) op.head.kind = TRUNCATE;
    return (int)leave(&op, fd, op.head.kind != OPEN, path, NULL, NULL);
}

static int open_any(int at, const char *name, int flags, mode_t mode) {
    char path[PATH_MAX];
    if ((flags & (O_CREAT | O_WRONLY | O_RDWR)) && path_at(at, name, path)) return open_watched(at, path, name, flags, mode);
    return REAL(openat)(at, name, flags, mode);
}

#define MODE(flags, last)                          \
    mode_t mode = 0;                               \
    if ((flags) & (O_CREAT | __O_TMPFILE)) {       \
        va_list rest;                              \
        va_start(rest, last);                      \
        mode = (mode_t)va_arg(rest, unsigned int); \
        va_end(rest);                              \
    }

int open(const char *name, int flags, ...) { MODE(flags, flags) return open_any(AT_FDCWD, name, flags, mode); }
int open64(const char *name, int flags, ...) { MODE(flags, flags) return open_any(AT_FDCWD, name, flags, mode); }
int openat(int at, const char *name, int flags, ...) { MODE(flags, flags) return open_any(at, name, flags, mode); }
int openat64(int at, const char *name, int flags, ...) { MODE(flags, flags) return open_any(at, name, flags, mode); }

/* `offset` below 0: where the file is at, or its end if it is appended to. */
static ssize_t write_any(int fd, const char *path, const void *bytes, size_t len, off_t offset) {
    struct op op = enter(WRITE);
    ssize_t result = -1;
    struct stat there;
    int error = errno;
    if (offset >= 0) op.head.offset = (uint64_t)offset;
    else if (fcntl(fd, F_GETFL) & O_APPEND) op.head.offset = fstat(fd, &there) == 0 ? (uint64_t)there.st_size : 0;
    else op.head.offset = (uint64_t)lseek(fd, 0, SEEK_CUR);
    op.head.inode = inode_of(fd);
    errno = error;
    if (op.halves) len = (len + 1) / 2;
    if (!op.fails) result = offset >= 0 ? REAL(pwrite)(fd, bytes, len, offset) : REAL(write)(fd, bytes, len);
    return leave(&op, result, 1, path, NULL, bytes);
}

ssize_t write(int fd, const void *bytes, size_t len) {
    char path[PATH_MAX];
    return path_of(fd, path) ? write_any(fd, path, bytes, len, -1) : REAL(write)(fd, bytes, len);
}

ssize_t pwrite(int fd, const void *bytes, size_t len, off_t offset) {
    char path[PATH_MAX];
    return path_of(fd, path) ? write_any(fd, path, bytes, len, offset) : REAL(pwrite)(fd, bytes, len, offset);
}

ssize_t pwrite64(int fd, const void *bytes, size_t len, off64_t offset) { return pwrite(fd, bytes, len, offset); }

ssize_t writev(int fd, const struct iovec *parts, int n) {
    char path[PATH_MAX];
    if (!path_of(fd, path)) return REAL(writev)(fd, parts, n);
    /* As a writev that takes one part: the caller goes on with the rest. */
    while (n > 1 && parts->iov_len == 0) parts++, n--;
    return n > 0 ? write_any(fd, path, parts->iov_base, parts->iov_len, -1) : 0;
}

int ftruncate(int fd, off_t len) {
    char path[PATH_MAX];
    if (!path_of(fd, path)) return REAL(ftruncate)(fd, len);
    struct op op = enter(TRUNCATE);
    op.head.inode = inode_of(fd);
    op.head.offset = (uint64_t)len;
    return (int)leave(&op, op.fails ? -1 : REAL(ftruncate)(fd, len), 1, path, NULL, NULL);
}

int ftruncate64(int fd, off64_t len) { return ftruncate(fd, len); }

/* The data are not really forced out: the tests rebuild disks from the log, and never pull the plug. */
static int sync_any(int fd, const char *path) {
    struct stat there;
    struct op op = enter(SYNC);
    if (fstat(fd, &there) == 0) {
        op.head.inode = there.st_ino;
        if (S_ISDIR(there.st_mode)) op.head.kind = SYNC_DIR;
    }
    return (int)leave(&op, op.fails ? -1 : 0, 1, path, NULL, NULL);
}

int fsync(int fd) {
    char path[PATH_MAX];
    return path_of(fd, path) ? sync_any(fd, path) : REAL(fsync)(fd);
}

int fdatasync(int fd) {
    char path[PATH_MAX];
    return path_of(fd, path) ? sync_any(fd, path) : REAL(fdatasync)(fd);
}

int renameat(int from_at, const char *from, int to_at, const char *to) {
    char path[PATH_MAX], path2[PATH_MAX];
    if (!path_at(from_at, from, path) || !path_at(to_at, to, path2)) return REAL(renameat)(from_at, from, to_at, to);
    struct op op = enter(RENAME);
    return (int)leave(&op, op.fails ? -1 : REAL(renameat)(from_at, from, to_at, to), 1, path, path2, NULL);
}

int rename(const char *from, const char *to) { return renameat(AT_FDCWD, from, AT_FDCWD, to); }

int unlinkat(int at, const char *name, int flags) {
    char path[PATH_MAX];
    if (!path_at(at, name, path)) return REAL(unlinkat)(at, name, flags);
    struct op op = enter(flags & AT_REMOVEDIR ? RMDIR : UNLINK);
    return (int)leave(&op, op.fails ? -1 : REAL(unlinkat)(at, name, flags), 1, path, NULL, NULL);
}

int unlink(const char *name) { return unlinkat(AT_FDCWD, name, 0); }
int rmdir(const char *name) { return unlinkat(AT_FDCWD, name, AT_REMOVEDIR); }

int mkdir(const char *name, mode_t mode) {
    char path[PATH_MAX];
    if (!path_at(AT_FDCWD, name, path)) return REAL(mkdir)(name, mode);
    struct op op = enter(MKDIR);
    return (int)leave(&op, op.fails ? -1 : REAL(mkdir)(name, mode), 1, path, NULL, NULL);
}
