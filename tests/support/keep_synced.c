/* LD_PRELOAD: what a crash of the machine would leave of a directory.
 *
 * On every fsync and fdatasync of a file directly in $SYNCED_FROM, the file as it is now is copied to
 * $SYNCED_TO. What was written later and not synced is missing there, as it may be after a loss of power.
 * A file that was removed goes with the next sync, as on file systems that keep the order of such changes.
 *
 * The process kills itself at the end of the sync whose number is $DIE_AT_SYNC, counted from 1.
 */
#define _GNU_SOURCE
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

#define PATH_SIZE (PATH_MAX + 32)

static int syncs;

/* The path of an open file, if it is directly in $SYNCED_FROM; returns 0 if it is elsewhere. */
static int is_in_directory(int descriptor, char *path)
{
    const char *from = getenv("SYNCED_FROM");
    char link[64];
    snprintf(link, sizeof link, "/proc/self/fd/%d", descriptor);
    ssize_t length = readlink(link, path, PATH_MAX - 1);
    if (from == NULL || length < 0)
        return 0;
    path[length] = '\0';
    size_t prefix = strlen(from);
    return strncmp(path, from, prefix) == 0 && path[prefix] == '/' && strchr(path + prefix + 1, '/') == NULL;
}

/* Copies all of a file, to take the place of the copy before. */
static int copy(const char *source)
{
    char target[PATH_SIZE], temporary[PATH_SIZE + 32];
    snprintf(target, sizeof target, "%s%s", getenv("SYNCED_TO"), strrchr(source, '/'));
    snprintf(temporary, sizeof temporary, "%s.%d.part", target, (int)gettid());
    int in = open(source, O_RDONLY | O_CLOEXEC);
    int out = open(temporary, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    ssize_t copied = -1;
    if (in >= 0 && out >= 0)
        do
            copied = sendfile(out, in, NULL, 1 << 20);
        while (copied > 0);
    if (in >= 0)
        close(in);
    if (out >= 0)
        close(out);
    return copied == 0 ? rename(temporary, target) : -1;
}

/* Removes the copies of files that are gone. */
static void remove_gone(void)
{
    char original[PATH_SIZE], copied[PATH_SIZE];
    DIR *directory = opendir(getenv("SYNCED_TO"));
    struct dirent *entry;
    while (directory != NULL && (entry = readdir(directory)) != NULL) {
        snprintf(original, sizeof original, "%s/%s", getenv("SYNCED_FROM"), entry->d_name);
        snprintf(copied, sizeof copied, "%s/%s", getenv("SYNCED_TO"), entry->d_name);
        if (entry->d_type == DT_REG && strstr(entry->d_name, ".part") == NULL && access(original, F_OK) != 0)
            unlink(copied);
    }
    if (directory != NULL)
        closedir(directory);
}

static int keep(int descriptor)
{
    char path[PATH_MAX];
    struct stat status;
    if (fstat(descriptor, &status) != 0)
        return -1; /* errno is that of a bad descriptor */
    if (!S_ISREG(status.st_mode) || !is_in_directory(descriptor, path))
        return 0;
    if (copy(path) != 0) {
        errno = EIO;
        return -1;
    }
    remove_gone();
    const char *last = getenv("DIE_AT_SYNC");
    if (last != NULL && __sync_add_and_fetch(&syncs, 1) == atoi(last))
        kill(getpid(), SIGKILL);
    return 0;
}

int fsync(int descriptor)
{
    return keep(descriptor);
}

int fdatasync(int descriptor)
{
    return keep(descriptor);
}
