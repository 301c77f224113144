// The load generator: sends the requests of a plan, checks every reply byte for byte, and prints rate and
// latencies as JSON. It knows no protocol: plans.py makes requests and the replies that have to come.
#include "measure.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <netinet/in.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#define MAX_DEPTH 1024
#define BUFFER 65536
#define PATIENCE_MS 20000 // without any reply: a server that drops requests fails the run

// The plan's file: a header, the entries, and the bytes that they point to.
struct header {
    char magic[8];
    uint32_t count;
    uint32_t wild; // in replies the byte 0xc1, which is never used in MessagePack, stands for any
    double turn;   // Unix time from which on the other reply is the right one; 0: there is none
};
struct entry {
    uint64_t request, reply, other; // offsets in the file
    uint32_t request_size, reply_size;
};
struct sent {
    uint32_t entry;
    uint64_t at;
};
struct connection {
    int fd;
    uint32_t first, outstanding; // in `sent`, which is a ring
    uint32_t filled;             // bytes of the reply that is not whole
    struct sent sent[MAX_DEPTH];
    unsigned char partial[BUFFER];
};

static const struct header *plan;
static const struct entry *entries;
static const unsigned char *bytes;
static int connections = 1, depth = 1, core = -1, cycle, warm = 1, datagrams, anew;
static const char *address;
static uint64_t limit = UINT64_MAX, early_ns, late_ns, period_ns; // requests; where in a step which phase is
static double seconds = 1e9;
static uint64_t next_entry;      // goes on where the last run ended
static uint64_t issued, replied; // in this run
static uint64_t last_reply, deadline, wall_offset;
static struct histogram all, early, late;

static int exhausted(void) { return issued >= limit || (!cycle && next_entry >= plan->count); }

static void print_bytes(const char *what, const unsigned char *from, size_t size) {
    fprintf(stderr, "load: %s:", what);
    for (size_t i = 0; i < size && i < 400; i++)
        from[i] >= ' ' && from[i] < 127 && from[i] != '\\' ? fputc(from[i], stderr)
                                                          : fprintf(stderr, "\\x%02x", from[i]);
    fputc('\n', stderr);
}

static void wrong_reply(const struct connection *c, const unsigned char *got, size_t size) {
    const struct entry *entry = entries + c->sent[c->first].entry;
    fprintf(stderr, "load: request %u was not answered as it has to be\n", c->sent[c->first].entry);
    print_bytes("sent", bytes + entry->request, entry->request_size);
    print_bytes("wanted", bytes + entry->reply, entry->reply_size);
    if (plan->turn)
        print_bytes("or later", bytes + entry->other, entry->reply_size);
    print_bytes("came", got, size);
    exit(1);
}

static int matches(const unsigned char *got, uint64_t wanted, size_t size) {
    const unsigned char *reply = bytes + wanted;
    if (!plan->wild)
        return memcmp(got, reply, size) == 0;
    for (size_t i = 0; i < size; i++)
        if (got[i] != reply[i] && reply[i] != 0xc1)
            return 0;
    return 1;
}

// Whether it is the reply for the step in which the request may have been answered.
static int is_right(const struct connection *c, const unsigned char *got, uint64_t now) {
    const struct sent *sent = c->sent + c->first;
    const struct entry *entry = entries + sent->entry;
    if (!plan->turn)
        return matches(got, entry->reply, entry->reply_size);
    uint64_t turn = plan->turn * 1e9;
    return (sent->at + wall_offset < turn && matches(got, entry->reply, entry->reply_size)) ||
           (now + wall_offset >= turn && matches(got, entry->other, entry->reply_size));
}

static void count(const struct sent *sent, uint64_t now) {
    record(&all, now - sent->at);
    if (!period_ns)
        return;
    uint64_t sent_in = (sent->at + wall_offset) % period_ns, replied_in = (now + wall_offset) % period_ns;
    if (sent_in < early_ns || replied_in < early_ns)
        record(&early, now - sent->at);
    else if (sent_in >= late_ns)
        record(&late, now - sent->at);
}

static int connect_to(const char *address);

static void send_some(struct connection *c, int how_many) {
    static unsigned char out[BUFFER * 16];
    size_t size = 0;
    uint64_t now = now_ns();
    if (now >= deadline)
        return;
    if (anew && !exhausted()) { // the latency is that of the connect too
        close(c->fd);
        c->fd = connect_to(address);
    }
    for (; how_many > 0 && !exhausted(); how_many--) {
        uint32_t index = next_entry++ % plan->count;
        const struct entry *entry = entries + index;
        c->sent[(c->first + c->outstanding++) % MAX_DEPTH] = (struct sent){index, now};
        memcpy(out + size, bytes + entry->request, entry->request_size);
        size += entry->request_size;
        issued++;
        if (size + BUFFER > sizeof out)
            break;
    }
    for (size_t done = 0; done < size;) {
        ssize_t taken = send(c->fd, out + done, size - done, MSG_NOSIGNAL);
        if (taken < 0)
            fail("send");
        done += taken;
    }
}

// Read what is there, check it, and send as many requests as were answered.
static void receive(struct connection *c) {
    ssize_t got = recv(c->fd, c->partial + c->filled, BUFFER - c->filled, 0);
    if (got < 0 && (errno == EAGAIN || errno == EINTR))
        wrong_reply(c, c->partial, c->filled);
    if (got < 0)
        fail("recv");
    if (got == 0 && !datagrams)
        wrong_reply(c, c->partial, c->filled);
    uint64_t now = now_ns();
    size_t at = 0, size = c->filled + got;
    int answered = 0;
    while (c->outstanding && at < size) {
        size_t wanted = entries[c->sent[c->first].entry].reply_size;
        if (datagrams && size != wanted)
            wrong_reply(c, c->partial, size);
        if (size - at < wanted)
            break;
        if (!is_right(c, c->partial + at, now))
            wrong_reply(c, c->partial + at, size - at);
        count(c->sent + c->first, now);
        c->first = (c->first + 1) % MAX_DEPTH;
        c->outstanding--;
        at += wanted;
        answered++;
    }
    if (at < size && !c->outstanding) {
        print_bytes("more came than was asked for", c->partial + at, size - at);
        exit(1);
    }
    c->filled = size - at;
    memmove(c->partial, c->partial + at, c->filled);
    replied += answered;
    last_reply = now;
    if (answered)
        send_some(c, answered);
}

static void run(struct connection *all_connections, int epoll, int how_deep) {
    issued = replied = 0;
    for (int i = 0; i < connections; i++)
        send_some(all_connections + i, how_deep);
    struct epoll_event ready[256];
    while (replied < issued) {
        if (connections == 1) { // without epoll: nothing but a send and a recv for each request
            receive(all_connections);
            continue;
        }
        int found = epoll_wait(epoll, ready, 256, PATIENCE_MS);
        if (found == 0) {
            fprintf(stderr, "load: %llu replies did not come\n", (unsigned long long)(issued - replied));
            exit(1);
        }
        for (int i = 0; i < found; i++)
            receive(ready[i].data.ptr);
    }
}

static int connect_to(const char *address) {
    struct timeval patience = {.tv_sec = PATIENCE_MS / 1000};
    int fd;
    if (datagrams) {
        struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(atoi(address + 4))};
        to.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
        fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
        if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof to) != 0)
            fail(address);
    } else {
        struct sockaddr_un to = {.sun_family = AF_UNIX};
        strncpy(to.sun_path, address, sizeof to.sun_path - 1);
        fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
        if (fd < 0 || connect(fd, (struct sockaddr *)&to, sizeof to) != 0)
            fail(address);
    }
    if (setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience) != 0)
        fail("SO_RCVTIMEO");
    return fd;
}

static void map(const char *path) {
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat status;
    if (fd < 0 || fstat(fd, &status) != 0)
        fail(path);
    bytes = mmap(NULL, status.st_size, PROT_READ, MAP_PRIVATE | MAP_POPULATE, fd, 0);
    if (bytes == MAP_FAILED)
        fail("mmap");
    plan = (const struct header *)bytes;
    entries = (const struct entry *)(bytes + sizeof *plan);
    if (memcmp(plan->magic, "p2fplan1", 8) != 0 || plan->count == 0) {
        fprintf(stderr, "load: %s is no plan\n", path);
        exit(2);
    }
}

static void parse(int argc, char **argv) {
    enum { CONNECTIONS, DEPTH, SECONDS, REQUESTS, FROM, CYCLE, COLD, CORE, PERIOD, EARLY, LATE, ANEW };
    static const struct option options[] = {
        {"connections", 1, 0, CONNECTIONS}, {"depth", 1, 0, DEPTH}, {"seconds", 1, 0, SECONDS},
        {"requests", 1, 0, REQUESTS}, {"from", 1, 0, FROM}, {"cycle", 0, 0, CYCLE}, {"cold", 0, 0, COLD},
        {"core", 1, 0, CORE}, {"period", 1, 0, PERIOD}, {"early", 1, 0, EARLY}, {"late", 1, 0, LATE}, {"anew", 0, 0, ANEW},
        {0},
    };
    for (int option; (option = getopt_long(argc, argv, "", options, NULL)) != -1;) {
        switch (option) {
        case CONNECTIONS: connections = atoi(optarg); break;
        case DEPTH: depth = atoi(optarg); break;
        case SECONDS: seconds = atof(optarg); break;
        case REQUESTS: limit = strtoull(optarg, NULL, 10); break;
        case FROM: next_entry = strtoull(optarg, NULL, 10); break;
        case CYCLE: cycle = 1; break;
        case COLD: warm = 0; break; // the first requests count too
        case CORE: core = atoi(optarg); break;
        case PERIOD: period_ns = atof(optarg) * 1e9; break;
        case EARLY: early_ns = atof(optarg) * 1e9; break;
        case LATE: late_ns = atof(optarg) * 1e9; break;
        case ANEW: anew = 1; break; // a connection for each request
        default: exit(2);
        }
    }
    if (argc - optind != 2 || connections < 1 || depth < 1 || depth > MAX_DEPTH ||
        (anew && (connections != 1 || depth != 1))) {
        fprintf(stderr, "usage: load [OPTION]... SOCKET|udp:PORT PLAN\n");
        exit(2);
    }
}

int main(int argc, char **argv) {
    parse(argc, argv);
    address = argv[optind];
    datagrams = strncmp(address, "udp:", 4) == 0;
    map(argv[optind + 1]);
    pin(core);
    wall_offset = wall_ns() - now_ns();

    struct connection *connected = calloc(connections, sizeof *connected);
    int epoll = epoll_create1(EPOLL_CLOEXEC);
    if (!connected || epoll < 0)
        fail("epoll");
    for (int i = 0; i < connections; i++) {
        struct epoll_event event = {.events = EPOLLIN, .data.ptr = connected + i};
        connected[i].fd = connect_to(address);
        if (epoll_ctl(epoll, EPOLL_CTL_ADD, connected[i].fd, &event) != 0)
            fail("epoll");
    }

    uint64_t wanted = limit;
    deadline = UINT64_MAX;
    if (warm) { // one request on each connection: the server has accepted them all
        limit = connections;
        run(connected, epoll, 1);
        memset(&all, 0, sizeof all);
        memset(&early, 0, sizeof early);
        memset(&late, 0, sizeof late);
    }
    limit = wanted;
    uint64_t begun = last_reply = now_ns();
    deadline = seconds < 1e9 ? begun + (uint64_t)(seconds * 1e9) : UINT64_MAX;
    run(connected, epoll, depth);

    printf("{\"requests\": %llu, \"seconds\": %.9f, \"next\": %llu", (unsigned long long)replied,
           (last_reply - begun) / 1e9, (unsigned long long)next_entry);
    print_histogram("", &all);
    if (period_ns) {
        print_histogram("early_", &early);
        print_histogram("late_", &late);
    }
    printf("}\n");
    return 0;
}
