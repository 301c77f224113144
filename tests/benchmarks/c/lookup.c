// The limit of what has to be done: finds the account of a message in a table and compares the code.
// A message is a name (24 bytes, filled up with zeros), a code (8 likewise) and 8 bytes, whose first
// becomes 1 or 0. The table's file has names and codes alike.
#include "serve.h"

#include <fcntl.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/stat.h>

#define NAME 24
#define CODE 8
#define RECORD (NAME + CODE)

static const unsigned char *records;
static uint32_t *slots, mask; // numbers of records from 1 on

static uint32_t hash(const unsigned char *name) {
    uint32_t h = 2166136261u;
    for (int i = 0; i < NAME && name[i]; i++)
        h = (h ^ name[i]) * 16777619u;
    return h;
}

static void answer(unsigned char *message) {
    unsigned char differs = 1;
    for (uint32_t at = hash(message); slots[at & mask]; at++) {
        const unsigned char *record = records + (size_t)(slots[at & mask] - 1) * RECORD;
        if (memcmp(record, message, NAME) != 0)
            continue;
        differs = 0;
        for (int i = NAME; i < RECORD; i++) // in constant time
            differs |= record[i] ^ message[i];
        break;
    }
    message[RECORD] = !differs;
}

int main(int argc, char **argv) {
    struct stat status;
    int fd = argc == 3 ? open(argv[2], O_RDONLY) : -1;
    if (fd < 0 || fstat(fd, &status) != 0)
        return 2;
    records = mmap(NULL, status.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    uint32_t count = status.st_size / RECORD;
    for (mask = 1; mask < 2 * count; mask <<= 1)
        ;
    slots = calloc(mask--, sizeof *slots);
    if (records == MAP_FAILED || !slots)
        fail(argv[2]);
    for (uint32_t i = 0; i < count; i++) {
        uint32_t at = hash(records + (size_t)i * RECORD);
        while (slots[at & mask])
            at++;
        slots[at & mask] = i + 1;
    }
    serve(argv[1]);
}
