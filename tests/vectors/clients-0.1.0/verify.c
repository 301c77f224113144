// ./verify CODE [ACCOUNT]: exits with 0 (valid), 1 (invalid), or 2 and why on stderr.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <sys/un.h>

static int fail(const char *why) { return fprintf(stderr, "verify: %s\n", why), 2; }

int main(int argc, char **argv) {
    struct sockaddr_un address = {.sun_family = AF_UNIX, .sun_path = "/run/pki2fad/socket"};
    const char *path = getenv("PKI2FAD_SOCKET"), *code = argv[1], *account = argc > 2 ? argv[2] : "default";
    if (argc < 2 || strlen(code) > 255 || strlen(account) > 255) return fail("usage: verify CODE [ACCOUNT]");
    if (path && strlen(path) >= sizeof address.sun_path) return fail("PKI2FAD_SOCKET is too long");
    if (path && *path) strcpy(address.sun_path, path);

    char request[1024]; // [0, 1, "verify", [{"code": code, "account": account}]]
    int length = snprintf(request, sizeof request,
                          "\x94%c\1\xa6verify\x91\x82\xa4" "code\xd9%c%s\xa7" "account\xd9%c%s", 0,
                          (int)strlen(code), code, (int)strlen(account), account);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &(struct timeval){.tv_sec = 5}, sizeof(struct timeval));
    if (connect(fd, (struct sockaddr *)&address, sizeof address) != 0) return perror(address.sun_path), 2;
    send(fd, request, length, MSG_NOSIGNAL);
    shutdown(fd, SHUT_WR); // so that the daemon closes the connection behind its answer

    unsigned char answer[1024] = {0};
    size_t size = fread(answer, 1, sizeof answer, fdopen(fd, "r"));
    if (size == 12 && !memcmp(answer, "\x94\1\1\xc0\x81\xa5valid\xc3", 12)) return 0;
    if (size == 12 && !memcmp(answer, "\x94\1\1\xc0\x81\xa5valid\xc2", 12)) return 1;

    // [1, 1, [code, message, ...], nil], where the sizes are of one byte: all that is looked at is in `answer`.
    unsigned char *text = answer + 5 + (answer[4] & 31);
    int left = *text == 0xd9 ? *++text : *text & 31;
    if (memcmp(answer, "\x94\1\1", 3) || answer[3] >> 4 != 9 || text + left >= answer + size)
        return fail("no whole answer came");
    return fprintf(stderr, "%.*s\n", left, (char *)text + 1), 2;
}
