// A server on a Unix socket that answers messages of 40 bytes with as many: one read and one write for
// whatever has arrived. `answer` changes a message into its answer.
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#define MESSAGE 40
#define MAX_FD 65536

static void answer(unsigned char *message);

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static void serve(const char *path) {
    static unsigned char buffer[MESSAGE * 1600];
    static struct { // a message that is not whole
        unsigned char bytes[MESSAGE];
        int filled;
    } left[MAX_FD];
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    strncpy(address.sun_path, path, sizeof address.sun_path - 1);
    int listening = socket(AF_UNIX, SOCK_STREAM, 0), epoll = epoll_create1(0);
    struct epoll_event event = {.events = EPOLLIN, .data.fd = listening}, ready[256];
    if (bind(listening, (struct sockaddr *)&address, sizeof address) != 0 || listen(listening, 1024) != 0 ||
        epoll_ctl(epoll, EPOLL_CTL_ADD, listening, &event) != 0)
        fail(path);
    for (;;) {
        int found = epoll_wait(epoll, ready, 256, -1);
        for (int i = 0; i < found; i++) {
            int fd = ready[i].data.fd;
            if (fd == listening) {
                event.data.fd = accept(listening, NULL, NULL);
                if (event.data.fd < 0 || event.data.fd >= MAX_FD)
                    fail("accept");
                left[event.data.fd].filled = 0;
                epoll_ctl(epoll, EPOLL_CTL_ADD, event.data.fd, &event);
                continue;
            }
            int kept = left[fd].filled;
            memcpy(buffer, left[fd].bytes, kept);
            ssize_t got = recv(fd, buffer + kept, sizeof buffer - MESSAGE, 0);
            if (got <= 0) {
                close(fd);
                continue;
            }
            size_t size = kept + got, whole = size / MESSAGE * MESSAGE;
            for (size_t at = 0; at < whole; at += MESSAGE)
                answer(buffer + at);
            left[fd].filled = size - whole;
            memcpy(left[fd].bytes, buffer + whole, left[fd].filled);
            if (whole && send(fd, buffer, whole, MSG_NOSIGNAL) != (ssize_t)whole)
                close(fd); // who does not read is no client of a benchmark
        }
    }
}
