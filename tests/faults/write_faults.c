/* Faults of a disk, on purpose: preloaded into a process (LD_PRELOAD), it counts the calls that change one folder and
 * lets the k-th go wrong. Compiled and used by tests/faults/writes.py:
 *
 *     faults_watch(folder, log)            count from here on; every call is a line of the file descriptor `log`
 *     faults_plan(kind, error, calls, k)   what happens at the k-th of the calls of some types; 0 for k: nothing
 *     faults_seen()                        how many of them there were
 *
 * Writing through a FILE goes on inside the C library, out of sight: of those, fopen, fwrite, fflush and fclose count.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

enum { OPEN = 1, WRITE = 2, SYNC = 4, CLOSE = 8, RENAME = 16, UNLINK = 32, MKDIR = 64, SIZE = 128, MODE = 256 };
enum { ONCE = 1, FROM_THEN_ON, SHORT, SHORT_THEN_FULL, LOST, KILL, VANISH, WAIT, PAUSE };
enum { GO_ON, FAIL, HALF };

#define FILES 65536
static char watched[PATH_MAX];
static size_t watched_length;
static int log_file = -1, kind, error_number, calls;
static long wanted;
static atomic_long seen;
static atomic_uchar changes[FILES]; /* of a file descriptor: 1 open to write in the folder, 2 written to */

#define REAL(name) ({ static __typeof__(&name) real; if (!real) real = (__typeof__(&name))dlsym(RTLD_NEXT, #name); real; })

static int is_inside(const char *path) {
    return watched_length && !strncmp(path, watched, watched_length) &&
           (path[watched_length] == '/' || !path[watched_length]);
}

/* The absolute path of a name, links not followed; empty where it has none. */
static void absolute(int folder, const char *name, char *path) {
    path[0] = 0;
    if (!name) return;
    if (name[0] != '/') {
        char link[64];
        if (folder == AT_FDCWD) strcpy(link, "/proc/self/cwd");
        else snprintf(link, sizeof link, "/proc/self/fd/%d", folder);
        ssize_t length = readlink(link, path, PATH_MAX - 1);
        if (length < 0) length = 0;
        path[length] = 0;
        if (length + strlen(name) + 2 < PATH_MAX) strcat(strcat(path, "/"), name);
    } else if (strlen(name) < PATH_MAX) strcpy(path, name);
}

static void path_of(int file, char *path) {
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", file);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    path[length < 0 ? 0 : length] = 0;
}

static void note(long number, const char *call, const char *path, long long bytes) {
    char line[PATH_MAX + 128];
    const char *name = is_inside(path) ? path + watched_length : path;
    int length = snprintf(line, sizeof line, "%ld\t%s\t%s\t%lld\n", number, call, name, bytes);
    if (log_file >= 0) syscall(SYS_write, log_file, line, length);
}

/* The folder is no longer mounted: what was in it is elsewhere, in its place is an empty one. */
static void vanish(void) {
    char elsewhere[PATH_MAX + 8];
    snprintf(elsewhere, sizeof elsewhere, "%s.gone", watched);
    syscall(SYS_rename, watched, elsewhere);
    syscall(SYS_mkdir, watched, 0777);
}

/* A call of a type that changes `path` is about to be made. */
static int about_to(int type, const char *call, const char *path, long long bytes) {
    if (!(type & calls)) { note(0, call, path, bytes); return GO_ON; }
    long number = ++seen;
    note(number, call, path, bytes);
    if (kind == WAIT && wanted) usleep((number * 2654435761u ^ wanted * 40503u) % 4000);
    if (kind == PAUSE) raise(SIGSTOP);
    if (!wanted || number < wanted || kind == WAIT || kind == PAUSE) return GO_ON;
    if (number > wanted) {
        if (kind != FROM_THEN_ON && kind != SHORT_THEN_FULL) return GO_ON;
    } else if (kind == KILL) {
        raise(SIGKILL);
    } else if (kind == VANISH) {
        vanish();
        return GO_ON;
    } else if (kind == SHORT || kind == SHORT_THEN_FULL) {
        return HALF;
    }
    errno = error_number;
    return FAIL;
}

static int about_to_change(int type, const char *call, int file, long long bytes) {
    if (file < 0 || file >= FILES || !changes[file]) return GO_ON;
    char path[PATH_MAX];
    path_of(file, path);
    if (type == WRITE || type == SIZE) changes[file] = 2;
    return about_to(type, call, path, bytes);
}

static int about_to_name(int type, const char *call, int folder, const char *name) {
    if (!watched_length) return GO_ON;
    char path[PATH_MAX];
    absolute(folder, name, path);
    return is_inside(path) ? about_to(type, call, path, 0) : GO_ON;
}

/* The disk said yes to what was written, and then could not keep it. */
static void lose(int file) {
    struct stat about;
    if (kind == LOST && !fstat(file, &about)) REAL(ftruncate)(file, about.st_size / 2);
}

void faults_plan(int a_kind, int an_error, int some_calls, long number) {
    kind = a_kind; error_number = an_error; calls = some_calls; wanted = number; seen = 0;
}

void faults_watch(const char *folder, int log) {
    log_file = log;
    watched_length = strlen(folder);
    strcpy(watched, folder);
    memset(changes, 0, sizeof changes);
}

long faults_seen(void) { return seen; }

/* Files are opened. */
static int writes(int flags) { return (flags & O_ACCMODE) != O_RDONLY || flags & (O_CREAT | O_TRUNC); }

static int opened(int file, int folder, const char *name, int flags) {
    if (file >= 0 && file < FILES) {
        char path[PATH_MAX];
        if (watched_length && writes(flags)) absolute(folder, name, path); else path[0] = 0;
        changes[file] = is_inside(path);
    }
    return file;
}

#define MODE_OF(flags) mode_t mode = 0; if (flags & (O_CREAT | __O_TMPFILE)) { \
    va_list more; va_start(more, flags); mode = va_arg(more, mode_t); va_end(more); }
#define OPENS(call, folder) if (writes(flags) && about_to_name(OPEN, #call, folder, name)) return -1;
#define OPEN_OF(call) int call(const char *name, int flags, ...) { MODE_OF(flags) OPENS(open, AT_FDCWD) \
    return opened(REAL(call)(name, flags, mode), AT_FDCWD, name, flags); }
#define OPENAT_OF(call) int call(int folder, const char *name, int flags, ...) { MODE_OF(flags) OPENS(openat, folder) \
    return opened(REAL(call)(folder, name, flags, mode), folder, name, flags); }
#define CREAT_OF(call) int call(const char *name, mode_t mode) { int flags = O_CREAT | O_WRONLY | O_TRUNC; \
    OPENS(creat, AT_FDCWD) return opened(REAL(call)(name, mode), AT_FDCWD, name, flags); }
#define FOPEN_OF(call) FILE *call(const char *name, const char *mode) { \
    int flags = strpbrk(mode, "wa+") ? O_RDWR : O_RDONLY; \
    if (writes(flags) && about_to_name(OPEN, #call, AT_FDCWD, name)) return NULL; \
    FILE *file = REAL(call)(name, mode); \
    if (file) opened(fileno(file), AT_FDCWD, name, flags); \
    return file; }
OPEN_OF(open) OPEN_OF(open64) OPENAT_OF(openat) OPENAT_OF(openat64) CREAT_OF(creat) CREAT_OF(creat64)
FOPEN_OF(fopen) FOPEN_OF(fopen64)
int __open_2(const char *name, int flags) { return open(name, flags); }
int __open64_2(const char *name, int flags) { return open64(name, flags); }
int __openat_2(int folder, const char *name, int flags) { return openat(folder, name, flags); }
int __openat64_2(int folder, const char *name, int flags) { return openat64(folder, name, flags); }

static int copied(int from, int to) {
    if (from >= 0 && to >= 0 && from < FILES && to < FILES) changes[to] = changes[from];
    return to;
}
int dup(int file) { return copied(file, REAL(dup)(file)); }
int dup2(int file, int to) { return copied(file, REAL(dup2)(file, to)); }
int dup3(int file, int to, int flags) { return copied(file, REAL(dup3)(file, to, flags)); }

/* They are written to. */
#define WRITES(file, count, half, all) \
    switch (about_to_change(WRITE, __func__, file, count)) { case FAIL: return -1; case HALF: return half; } return all;
#define PWRITE_OF(call, offset) ssize_t call(int file, const void *data, size_t count, offset at) { \
    WRITES(file, count, REAL(call)(file, data, (count + 1) / 2, at), REAL(call)(file, data, count, at)) }
ssize_t write(int file, const void *data, size_t count) {
    WRITES(file, count, REAL(write)(file, data, (count + 1) / 2), REAL(write)(file, data, count))
}
PWRITE_OF(pwrite, off_t) PWRITE_OF(pwrite64, off64_t)

static long long length(const struct iovec *parts, int count) {
    long long sum = 0;
    for (int part = 0; part < count; part++) sum += parts[part].iov_len;
    return sum;
}
#define FIRST(parts) (parts->iov_len + 1) / 2
ssize_t writev(int file, const struct iovec *parts, int count) {
    WRITES(file, length(parts, count), REAL(write)(file, parts->iov_base, FIRST(parts)),
           REAL(writev)(file, parts, count))
}
#define PWRITEV_OF(call, offset) ssize_t call(int file, const struct iovec *parts, int count, offset at) { \
    WRITES(file, length(parts, count), REAL(pwrite64)(file, parts->iov_base, FIRST(parts), at), \
           REAL(call)(file, parts, count, at)) }
PWRITEV_OF(pwritev, off_t) PWRITEV_OF(pwritev64, off64_t)

ssize_t sendfile(int to, int from, off_t *at, size_t count) {
    WRITES(to, count, REAL(sendfile)(to, from, at, (count + 1) / 2), REAL(sendfile)(to, from, at, count))
}
ssize_t sendfile64(int to, int from, off64_t *at, size_t count) { return sendfile(to, from, at, count); }
ssize_t copy_file_range(int from, off64_t *at, int to, off64_t *there, size_t count, unsigned flags) {
    WRITES(to, count, REAL(copy_file_range)(from, at, to, there, (count + 1) / 2, flags),
           REAL(copy_file_range)(from, at, to, there, count, flags))
}

size_t fwrite(const void *data, size_t size, size_t count, FILE *file) {
    switch (about_to_change(WRITE, "fwrite", fileno(file), size * count)) {
        case FAIL: return 0;
        case HALF: if (kind == SHORT_THEN_FULL) count = (count + 1) / 2, errno = error_number;
    }
    return REAL(fwrite)(data, size, count, file);
}
int fflush(FILE *file) {
    if (file && about_to_change(WRITE, "fflush", fileno(file), 0) == FAIL) return EOF;
    return REAL(fflush)(file);
}

/* Their length is set. */
#define SETS_SIZE(call, ...) return about_to_change(SIZE, #call, file, 0) == FAIL ? -1 : REAL(call)(file, __VA_ARGS__);
int ftruncate(int file, off_t size) { SETS_SIZE(ftruncate, size) }
int ftruncate64(int file, off64_t size) { SETS_SIZE(ftruncate64, size) }
int fallocate(int file, int mode, off_t at, off_t size) { SETS_SIZE(fallocate, mode, at, size) }
int fallocate64(int file, int mode, off64_t at, off64_t size) { SETS_SIZE(fallocate64, mode, at, size) }
#define ALLOCATE_OF(call, offset) int call(int file, offset at, offset size) { \
    return about_to_change(SIZE, #call, file, 0) == FAIL ? errno : REAL(call)(file, at, size); }
ALLOCATE_OF(posix_fallocate, off_t) ALLOCATE_OF(posix_fallocate64, off64_t)
int truncate(const char *name, off_t size) {
    return about_to_name(SIZE, "truncate", AT_FDCWD, name) == FAIL ? -1 : REAL(truncate)(name, size);
}

/* They are synced and closed, where the disk may say that it could not keep what was written. */
#define SYNCS(call) if (about_to_change(SYNC, #call, file, 0) == FAIL) { int said = errno; lose(file); errno = said; \
    return -1; } return REAL(call)(file);
int fsync(int file) { SYNCS(fsync) }
int fdatasync(int file) { SYNCS(fdatasync) }
int close(int file) {
    int failed = 0;
    if (file >= 0 && file < FILES && changes[file] == 2 && about_to_change(CLOSE, "close", file, 0) == FAIL) {
        failed = errno;
        lose(file);
    }
    if (file >= 0 && file < FILES) changes[file] = 0;
    int answer = REAL(close)(file);
    if (failed) errno = failed;
    return failed ? -1 : answer;
}
int fclose(FILE *file) {
    int number = fileno(file), failed = 0;
    if (number >= 0 && number < FILES && changes[number] == 2 && about_to_change(CLOSE, "fclose", number, 0) == FAIL) {
        failed = errno;
        REAL(fflush)(file);
        lose(number);
    }
    if (number >= 0 && number < FILES) changes[number] = 0;
    int answer = REAL(fclose)(file);
    if (failed) errno = failed;
    return failed ? EOF : answer;
}

/* Names are given and taken. */
#define NAMES(type, call, folder, name, ...) \
    return about_to_name(type, #call, folder, name) == FAIL ? -1 : REAL(call)(__VA_ARGS__);
static void note_from(int folder, const char *name) {
    char path[PATH_MAX];
    absolute(folder, name, path);
    if (is_inside(path)) note(0, "from", path, 0);
}
int rename(const char *from, const char *to) {
    note_from(AT_FDCWD, from);
    NAMES(RENAME, rename, AT_FDCWD, to, from, to)
}
int renameat(int a, const char *from, int b, const char *to) {
    note_from(a, from);
    NAMES(RENAME, renameat, b, to, a, from, b, to)
}
int renameat2(int a, const char *from, int b, const char *to, unsigned flags) {
    NAMES(RENAME, renameat2, b, to, a, from, b, to, flags)
}
int link(const char *from, const char *to) { NAMES(RENAME, link, AT_FDCWD, to, from, to) }
int linkat(int a, const char *from, int b, const char *to, int flags) {
    NAMES(RENAME, linkat, b, to, a, from, b, to, flags)
}
int symlink(const char *from, const char *to) { NAMES(RENAME, symlink, AT_FDCWD, to, from, to) }
int unlink(const char *name) { NAMES(UNLINK, unlink, AT_FDCWD, name, name) }
int unlinkat(int folder, const char *name, int flags) { NAMES(UNLINK, unlinkat, folder, name, folder, name, flags) }
int remove(const char *name) { NAMES(UNLINK, remove, AT_FDCWD, name, name) }
int rmdir(const char *name) { NAMES(UNLINK, rmdir, AT_FDCWD, name, name) }
int mkdir(const char *name, mode_t mode) { NAMES(MKDIR, mkdir, AT_FDCWD, name, name, mode) }
int mkdirat(int folder, const char *name, mode_t mode) { NAMES(MKDIR, mkdirat, folder, name, folder, name, mode) }
int chmod(const char *name, mode_t mode) { NAMES(MODE, chmod, AT_FDCWD, name, name, mode) }
int fchmod(int file, mode_t mode) { return about_to_change(MODE, "fchmod", file, 0) == FAIL ? -1 : REAL(fchmod)(file, mode); }
int fchmodat(int folder, const char *name, mode_t mode, int flags) {
    NAMES(MODE, fchmodat, folder, name, folder, name, mode, flags)
}
int utimensat(int folder, const char *name, const struct timespec times[2], int flags) {
    NAMES(MODE, utimensat, folder, name, folder, name, times, flags)
}
