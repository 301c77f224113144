/* LD_PRELOAD: shifts the wall clock of a process, live and in both directions.
 *
 * $CLOCK_SHIFT_FILE is mapped and holds two 64-bit integers: the shift in nanoseconds, and how often the
 * wall clock was read, so that a test can wait until the process has looked at it. Monotonic clocks,
 * sleeps and time-outs stay real.
 */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

#define NANOSECONDS 1000000000LL

struct shared {
    volatile int64_t shift;
    volatile int64_t looks;
};

static struct shared no_shift;
static struct shared *shared = &no_shift;

__attribute__((constructor)) static void map_file(void)
{
    const char *path = getenv("CLOCK_SHIFT_FILE");
    int descriptor = path ? open(path, O_RDWR | O_CLOEXEC) : -1;
    if (descriptor < 0)
        return;
    void *page = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, descriptor, 0);
    if (page != MAP_FAILED)
        shared = page;
    close(descriptor);
}

static int is_wall_clock(clockid_t clock)
{
    return clock == CLOCK_REALTIME || clock == CLOCK_REALTIME_COARSE || clock == CLOCK_TAI;
}

int clock_gettime(clockid_t clock, struct timespec *result)
{
    if (is_wall_clock(clock)) /* first: a look that is counted later sees the shift that is set now */
        __sync_fetch_and_add(&shared->looks, 1);
    int status = syscall(SYS_clock_gettime, clock, result);
    if (status == 0 && is_wall_clock(clock)) {
        int64_t shifted = result->tv_sec * NANOSECONDS + result->tv_nsec + shared->shift;
        result->tv_sec = shifted / NANOSECONDS;
        result->tv_nsec = shifted % NANOSECONDS;
    }
    return status;
}

int gettimeofday(struct timeval *restrict result, void *restrict zone)
{
    struct timespec now;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &now);
    result->tv_sec = now.tv_sec;
    result->tv_usec = now.tv_nsec / 1000;
    return 0;
}

time_t time(time_t *result)
{
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (result)
        *result = now.tv_sec;
    return now.tv_sec;
}
