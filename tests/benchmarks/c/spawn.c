// Runs a command again and again, one process after the other, checks what each prints, and prints what
// load.c prints: spawn SECONDS CORE EXPECTED COMMAND [ARGUMENT]...
#include "measure.h"

#include <spawn.h>
#include <sys/wait.h>

extern char **environ;

static void run(char **command, const char *expected) {
    int out[2], status;
    char got[256];
    size_t size = 0;
    pid_t pid;
    posix_spawn_file_actions_t actions;
    if (pipe(out) != 0)
        fail("pipe");
    posix_spawn_file_actions_init(&actions);
    posix_spawn_file_actions_adddup2(&actions, out[1], 1);
    posix_spawn_file_actions_addclose(&actions, out[0]);
    posix_spawn_file_actions_addclose(&actions, out[1]);
    if (posix_spawn(&pid, command[0], &actions, NULL, command, environ) != 0)
        fail(command[0]);
    posix_spawn_file_actions_destroy(&actions);
    close(out[1]);
    for (ssize_t more; size < sizeof got && (more = read(out[0], got + size, sizeof got - size)) > 0;)
        size += more;
    close(out[0]);
    if (waitpid(pid, &status, 0) != pid || status != 0 || size != strlen(expected) + 1 ||
        memcmp(got, expected, size - 1) != 0) {
        fprintf(stderr, "spawn: wanted %s, and %.*s came\n", expected, (int)size, got);
        exit(1);
    }
}

int main(int argc, char **argv) {
    if (argc < 5)
        return 2;
    static struct histogram all;
    uint64_t seconds = atof(argv[1]) * 1e9;
    pin(atoi(argv[2]));
    run(argv + 4, argv[3]); // its pages are in memory from here on
    uint64_t begun = now_ns(), now = begun;
    while (now < begun + seconds) {
        uint64_t at = now;
        run(argv + 4, argv[3]);
        now = now_ns();
        record(&all, now - at);
    }
    printf("{\"requests\": %llu, \"seconds\": %.9f, \"next\": 0", (unsigned long long)all.count,
           (now - begun) / 1e9);
    print_histogram("", &all);
    printf("}\n");
    return 0;
}
