// What both generators measure with: clocks, a core to stay on, and a histogram of nanoseconds.
#define _GNU_SOURCE
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

// Buckets grow with the value: each is less than a hundredth of it wide.
#define SUB 128
#define BUCKETS (58 * SUB)

struct histogram {
    uint64_t count, max, buckets[BUCKETS];
};

static inline void fail(const char *what) {
    perror(what);
    exit(1);
}

static inline uint64_t clock_ns(clockid_t clock) {
    struct timespec now;
    clock_gettime(clock, &now);
    return now.tv_sec * 1000000000ull + now.tv_nsec;
}
static inline uint64_t now_ns(void) { return clock_ns(CLOCK_MONOTONIC); }
static inline uint64_t wall_ns(void) { return clock_ns(CLOCK_REALTIME); }

static inline void pin(int core) {
    if (core < 0)
        return;
    cpu_set_t cores;
    CPU_ZERO(&cores);
    CPU_SET(core, &cores);
    if (sched_setaffinity(0, sizeof cores, &cores) != 0)
        fail("sched_setaffinity");
}

static inline void record(struct histogram *h, uint64_t value) {
    int exponent = value < SUB ? 0 : 63 - __builtin_clzll(value) - 6; // how far to shift for SUB..2*SUB-1
    h->buckets[exponent ? exponent * SUB + (value >> (exponent - 1)) % SUB : value]++;
    h->count++;
    if (value > h->max)
        h->max = value;
}

// The middle of the bucket below which so much of all is.
static inline double percentile(const struct histogram *h, double share) {
    uint64_t wanted = share * h->count, seen = 0;
    for (int i = 0; i < BUCKETS; i++) {
        seen += h->buckets[i];
        if (seen > wanted) {
            int exponent = i / SUB;
            double width = exponent ? (double)(1ull << (exponent - 1)) : 1;
            return exponent ? (i % SUB + SUB + .5) * width : i;
        }
    }
    return h->max;
}

// As members of a JSON object, in microseconds.
static inline void print_histogram(const char *prefix, const struct histogram *h) {
    printf(", \"%scount\": %llu, \"%sp50\": %.3f, \"%sp99\": %.3f, \"%sp999\": %.3f, \"%smax\": %.3f", prefix,
           (unsigned long long)h->count, prefix, percentile(h, .5) / 1e3, prefix, percentile(h, .99) / 1e3,
           prefix, percentile(h, .999) / 1e3, prefix, h->max / 1e3);
}
