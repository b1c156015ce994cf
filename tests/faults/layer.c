/* Faults under the file and socket calls of one process, for tests/faults. Preloaded with LD_PRELOAD; see layer.py.

   Counted are the calls that can fail: those on files and directories below a root directory, and on sockets. What
   happens at the n-th one is chosen with faults_arm. It is below Python, SQLite and TensorFlow. */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

enum { OFF, COUNT, KILL, ERROR, CUT, TORN, DELAY, FULL, DEAD, READONLY, DENIED, GONE };
enum { READS, WRITES, FREES, SOCKET }; /* what a call does; a full disk still frees */
#define MAX_FDS 65536

static volatile int mode;
static volatile long counter, target, lasting;
static char root[4096];
static size_t root_length;
static unsigned char below_root[MAX_FDS];
static char what[4400];

#define REAL(type, name, ...)                            \
    static type (*real)(__VA_ARGS__);                    \
    if (!real) *(void **)&real = dlsym(RTLD_NEXT, #name);

long faults_disarm(void) { mode = OFF; return counter; }
long faults_count(void) { return counter; }
const char *faults_what(void) { return what; }

static int is_below(const char *path) { return path && root_length && !strncmp(path, root, root_length); }
static int is_ours(int fd) { return fd >= 0 && fd < MAX_FDS && below_root[fd]; }
static int is_socket(int fd) {
    struct stat info;
    return mode != OFF && fd > 2 && !fstat(fd, &info) && S_ISSOCK(info.st_mode);
}
static void path_of(int fd, char *path, size_t size) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    ssize_t length = readlink(link, path, size - 1);
    path[length < 0 ? 0 : length] = 0;
}
/* calls: for how many calls a fault lasts that is not one of a single call. */
void faults_arm(const char *directory, int new_mode, long at, long calls) {
    snprintf(root, sizeof root, "%s", directory);
    root_length = strlen(root);
    counter = 0, target = at, lasting = calls, what[0] = 0;
    for (int fd = 0; fd < 1024; fd++) { /* what was opened before */
        char path[2048];
        path_of(fd, path, sizeof path);
        below_root[fd] = is_below(path);
    }
    mode = new_mode;
}
static const char *absolute(const char *path, char *buffer, size_t size, int directory) {
    if (path[0] == '/') return path;
    char parent[2048];
    if (directory != AT_FDCWD) path_of(directory, parent, sizeof parent);
    else if (!getcwd(parent, sizeof parent)) return path;
    snprintf(buffer, size, "%s/%s", parent, path);
    return buffer;
}

static void note(int fd, const char *path, int directory) {
    char buffer[4200];
    if (fd >= 0 && fd < MAX_FDS && path) below_root[fd] = is_below(absolute(path, buffer, sizeof buffer, directory));
}

/* The errno of a call during a fault that lasts; 0 if the call succeeds. */
static int lasting_error(int kind, int by_path) {
    int changes = kind == WRITES || kind == FREES;
    switch (mode) {
    case DEAD: return kind == READS ? 0 : EIO;
    case FULL: return kind == WRITES ? ENOSPC : 0;
    case READONLY: return changes ? EROFS : 0;
    case DENIED: return changes && by_path ? EACCES : 0; /* permissions are checked when a file is opened */
    case GONE: return by_path ? ENOENT : 0;
    }
    return 0;
}

/* 0: call the real function; 1: do a half of it, then `after_half`; -1: fail, errno is set. */
static int fault(int kind, const char *call, const char *path, int by_path) {
    if (mode == OFF) return 0;
    long number = __sync_add_and_fetch(&counter, 1);
    if (mode >= FULL) {
        if (number < target || (mode != DEAD && number >= target + lasting)) return 0;
        int error = lasting_error(kind, by_path);
        if (!error) return 0;
        if (!what[0]) snprintf(what, sizeof what, "%s %s", call, path);
        errno = error;
        return -1;
    }
    if (mode == COUNT || number != target) return 0;
    snprintf(what, sizeof what, "%s %s", call, path);
    switch (mode) {
    case KILL: kill(getpid(), SIGKILL); pause(); return -1;
    case ERROR: errno = kind == READS ? EIO : kind == SOCKET ? ECONNRESET : ENOSPC; return -1;
    case CUT: case TORN: return 1;
    case DELAY: nanosleep(&(struct timespec){0, 50000000}, 0); return 0;
    }
    return 0;
}
static void after_half(void) {
    if (mode == TORN) { kill(getpid(), SIGKILL); pause(); }
}
static int fd_fault(int kind, const char *call, int fd) {
    if (mode == OFF) return 0;
    int socket = !is_ours(fd);
    if (socket && !is_socket(fd)) return 0;
    char path[2048];
    path_of(fd, path, sizeof path);
    return fault(socket ? SOCKET : kind, call, path, 0);
}
static int path_fault(int kind, const char *call, int directory, const char *path) {
    if (mode == OFF || !path) return 0;
    char buffer[4200];
    path = absolute(path, buffer, sizeof buffer, directory);
    return is_below(path) ? fault(kind, call, path, 1) : 0;
}

static int open_kind(int flags) { return flags & (O_WRONLY | O_RDWR | O_CREAT) ? WRITES : READS; }
#define OPEN(name)                                                               \
    int name(const char *path, int flags, ...) {                                 \
        REAL(int, name, const char *, int, ...)                                  \
        va_list list; va_start(list, flags); mode_t bits = va_arg(list, mode_t); va_end(list); \
        if (path_fault(open_kind(flags), "open", AT_FDCWD, path) < 0) return -1; \
        int fd = real(path, flags, bits);                                        \
        note(fd, path, AT_FDCWD);                                                \
        return fd;                                                               \
    }
OPEN(open)
OPEN(open64)
#define OPENAT(name)                                                             \
    int name(int directory, const char *path, int flags, ...) {                  \
        REAL(int, name, int, const char *, int, ...)                             \
        va_list list; va_start(list, flags); mode_t bits = va_arg(list, mode_t); va_end(list); \
        if (path_fault(open_kind(flags), "open", directory, path) < 0) return -1; \
        int fd = real(directory, path, flags, bits);                             \
        note(fd, path, directory);                                               \
        return fd;                                                               \
    }
OPENAT(openat)
OPENAT(openat64)
#define FOPEN(name)                                                              \
    FILE *name(const char *path, const char *how) {                              \
        REAL(FILE *, name, const char *, const char *)                           \
        if (path_fault(strpbrk(how, "wa+") ? WRITES : READS, "fopen", AT_FDCWD, path) < 0) return 0; \
        FILE *file = real(path, how);                                            \
        if (file) note(fileno(file), path, AT_FDCWD);                            \
        return file;                                                             \
    }
FOPEN(fopen)
FOPEN(fopen64)
int close(int fd) {
    REAL(int, close, int)
    if (fd >= 0 && fd < MAX_FDS) below_root[fd] = 0;
    return real(fd);
}
int fclose(FILE *file) {
    REAL(int, fclose, FILE *)
    int fd = fileno(file), failed = is_ours(fd) && fd_fault(WRITES, "fclose", fd) < 0, number = errno;
    if (fd >= 0 && fd < MAX_FDS) below_root[fd] = 0;
    int result = real(file);
    if (failed) errno = number;
    return failed ? -1 : result;
}
int fflush(FILE *file) {
    REAL(int, fflush, FILE *)
    if (file && is_ours(fileno(file)) && fd_fault(WRITES, "fflush", fileno(file)) < 0) return -1;
    return real(file);
}
size_t fwrite(const void *data, size_t size, size_t count, FILE *file) {
    REAL(size_t, fwrite, const void *, size_t, size_t, FILE *)
    int result = is_ours(fileno(file)) ? fd_fault(WRITES, "fwrite", fileno(file)) : 0;
    if (result < 0) return 0;
    if (!result) return real(data, size, count, file);
    size_t done = real(data, size, count / 2, file);
    after_half();
    errno = ENOSPC;
    return done;
}

#define MOVE(kind, name, parameters, arguments, data_type)                       \
    ssize_t name parameters {                                                    \
        REAL(ssize_t, name, int, data_type, size_t COMMA_OFFSET_TYPE)            \
        int result = fd_fault(kind, #name, fd);                                  \
        if (result < 0) return -1;                                               \
        if (result && size > 1) size /= 2;                                       \
        ssize_t done = real arguments;                                           \
        if (result) after_half();                                                \
        return done;                                                             \
    }
#define COMMA_OFFSET_TYPE
MOVE(READS, read, (int fd, void *data, size_t size), (fd, data, size), void *)
MOVE(WRITES, write, (int fd, const void *data, size_t size), (fd, data, size), const void *)
#undef COMMA_OFFSET_TYPE
#define COMMA_OFFSET_TYPE , off_t
MOVE(READS, pread, (int fd, void *data, size_t size, off_t at), (fd, data, size, at), void *)
MOVE(READS, pread64, (int fd, void *data, size_t size, off_t at), (fd, data, size, at), void *)
MOVE(WRITES, pwrite, (int fd, const void *data, size_t size, off_t at), (fd, data, size, at), const void *)
MOVE(WRITES, pwrite64, (int fd, const void *data, size_t size, off_t at), (fd, data, size, at), const void *)
#undef COMMA_OFFSET_TYPE
#define COMMA_OFFSET_TYPE , int
MOVE(READS, recv, (int fd, void *data, size_t size, int flags), (fd, data, size, flags), void *)
MOVE(WRITES, send, (int fd, const void *data, size_t size, int flags), (fd, data, size, flags), const void *)

#define ON_FD(name, parameters, arguments, ...)                                  \
    int name parameters {                                                        \
        REAL(int, name, __VA_ARGS__)                                             \
        return fd_fault(WRITES, #name, fd) < 0 ? -1 : real arguments;            \
    }
ON_FD(fsync, (int fd), (fd), int)
ON_FD(fdatasync, (int fd), (fd), int)
ON_FD(ftruncate, (int fd, off_t size), (fd, size), int, off_t)
ON_FD(ftruncate64, (int fd, off_t size), (fd, size), int, off_t)
ON_FD(futimens, (int fd, const struct timespec t[2]), (fd, t), int, const struct timespec *)
ON_FD(accept4, (int fd, struct sockaddr *a, socklen_t *l, int f), (fd, a, l, f), int, struct sockaddr *, socklen_t *, int)
ON_FD(connect, (int fd, const struct sockaddr *a, socklen_t l), (fd, a, l), int, const struct sockaddr *, socklen_t)
ssize_t sendfile(int out, int in, off_t *offset, size_t size) {
    REAL(ssize_t, sendfile, int, int, off_t *, size_t)
    return fd_fault(WRITES, "sendfile", out) < 0 ? -1 : real(out, in, offset, size);
}
ssize_t sendmsg(int fd, const struct msghdr *message, int flags) {
    REAL(ssize_t, sendmsg, int, const struct msghdr *, int)
    return fd_fault(WRITES, "sendmsg", fd) < 0 ? -1 : real(fd, message, flags);
}
ssize_t writev(int fd, const struct iovec *parts, int count) {
    REAL(ssize_t, writev, int, const struct iovec *, int)
    return fd_fault(WRITES, "writev", fd) < 0 ? -1 : real(fd, parts, count);
}

#define ON_PATH(kind, name, directory, path, parameters, arguments, ...)               \
    int name parameters {                                                        \
        REAL(int, name, __VA_ARGS__)                                             \
        return path_fault(kind, #name, directory, path) < 0 ? -1 : real arguments; \
    }
ON_PATH(WRITES, rename, AT_FDCWD, to, (const char *from, const char *to), (from, to), const char *, const char *)
ON_PATH(WRITES, renameat, d2, to, (int d1, const char *from, int d2, const char *to), (d1, from, d2, to), int, const char *, int, const char *)
ON_PATH(FREES, unlink, AT_FDCWD, path, (const char *path), (path), const char *)
ON_PATH(FREES, unlinkat, directory, path, (int directory, const char *path, int flags), (directory, path, flags), int, const char *, int)
ON_PATH(FREES, rmdir, AT_FDCWD, path, (const char *path), (path), const char *)
ON_PATH(WRITES, mkdir, AT_FDCWD, path, (const char *path, mode_t bits), (path, bits), const char *, mode_t)
ON_PATH(WRITES, mkdirat, directory, path, (int directory, const char *path, mode_t bits), (directory, path, bits), int, const char *, mode_t)
ON_PATH(WRITES, link, AT_FDCWD, to, (const char *from, const char *to), (from, to), const char *, const char *)
ON_PATH(WRITES, linkat, d2, to, (int d1, const char *from, int d2, const char *to, int flags), (d1, from, d2, to, flags), int, const char *, int, const char *, int)
ON_PATH(WRITES, symlink, AT_FDCWD, path, (const char *target_path, const char *path), (target_path, path), const char *, const char *)
ON_PATH(WRITES, utimensat, directory, path, (int directory, const char *path, const struct timespec t[2], int flags), (directory, path, t, flags), int, const char *, const struct timespec *, int)
/* Not counted: they cannot fail but for a path that is gone. */
static int is_gone(const char *path) {
    char buffer[4200];
    if (mode != GONE || !path || counter < target || counter >= target + lasting) return 0;
    if (!is_below(absolute(path, buffer, sizeof buffer, AT_FDCWD))) return 0;
    errno = ENOENT;
    return 1;
}
#define LOOK(name, parameters, arguments, ...)                                   \
    int name parameters {                                                        \
        REAL(int, name, __VA_ARGS__)                                             \
        return is_gone(path) ? -1 : real arguments;                              \
    }
LOOK(stat, (const char *path, struct stat *info), (path, info), const char *, struct stat *)
LOOK(stat64, (const char *path, struct stat64 *info), (path, info), const char *, struct stat64 *)
LOOK(lstat, (const char *path, struct stat *info), (path, info), const char *, struct stat *)
LOOK(lstat64, (const char *path, struct stat64 *info), (path, info), const char *, struct stat64 *)
LOOK(access, (const char *path, int how), (path, how), const char *, int)
DIR *opendir(const char *path) {
    REAL(DIR *, opendir, const char *)
    return path_fault(READS, "opendir", AT_FDCWD, path) < 0 ? 0 : real(path);
}
