/* The peers of bench/daemon.py: an echo as a lower bound, and a guest that measures.
 *
 *   wire echo SOCK          echo every 4096 bytes, for any number of connections
 *   wire rtt SOCK N         ask N times, one after the other: p50 and p99 in ns
 *   wire pipe SOCK N        ask N times, 16 in flight: frames a second
 *   wire many PREFIX C N    C connections (PREFIX0 …), each asks in turn, N rounds: p50 and p99 in ns
 *   wire same SOCK C N      the same with all connections to one socket
 *   wire idle PREFIX C      C connections; prints a line when all are connected, ends at the end of its input
 */
#define _GNU_SOURCE
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

enum { FRAME = 4096, IN_FLIGHT = 16 };

static void die(const char *what) { perror(what); exit(1); }

static uint64_t now(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1000000000ull + t.tv_nsec;
}

static struct sockaddr_un address(const char *path) {
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    strncpy(a.sun_path, path, sizeof a.sun_path - 1);
    return a;
}

static int connected(const char *path) {
    struct sockaddr_un a = address(path);
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);
    if (fd < 0 || connect(fd, (struct sockaddr *)&a, sizeof a)) die(path);
    return fd;
}

static void put(int fd, const void *data, size_t size) {
    for (size_t done = 0; done < size;) {
        ssize_t n = write(fd, (const char *)data + done, size - done);
        if (n < 0) die("write");
        done += n;
    }
}

static void get(int fd, void *data, size_t size) {
    for (size_t done = 0; done < size;) {
        ssize_t n = read(fd, (char *)data + done, size - done);
        if (n <= 0) die("read");
        done += n;
    }
}

static void question(unsigned char *frame, uint64_t id) {
    static const uint32_t rest[8] = {1, 0, 1, 0, 0, 5, 1, 0};
    uint64_t guest = 10000000;
    memset(frame, 0, FRAME);
    memcpy(frame, &id, 8);
    memcpy(frame + 24, &guest, 8);
    memcpy(frame + 32, rest, sizeof rest);
}

static int ascending(const void *a, const void *b) {
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

static void tell(uint64_t *times, long n) {
    qsort(times, n, sizeof *times, ascending);
    printf("{\"p50\": %llu, \"p99\": %llu}\n", (unsigned long long)times[n / 2], (unsigned long long)times[n * 99 / 100]);
}

static void room(long files) {
    struct rlimit limit;
    getrlimit(RLIMIT_NOFILE, &limit);
    if (limit.rlim_cur < (rlim_t)files) limit.rlim_cur = limit.rlim_max < (rlim_t)files ? limit.rlim_max : (rlim_t)files;
    setrlimit(RLIMIT_NOFILE, &limit);
}

static int echo(const char *path) {
    static unsigned char buffer[65536];
    struct sockaddr_un a = address(path);
    int listener = socket(AF_UNIX, SOCK_STREAM, 0), poll = epoll_create1(0);
    unlink(path);
    if (bind(listener, (struct sockaddr *)&a, sizeof a) || listen(listener, 128)) die(path);
    struct epoll_event e = {.events = EPOLLIN, .data.fd = listener};
    epoll_ctl(poll, EPOLL_CTL_ADD, listener, &e);
    for (;;) {
        struct epoll_event ready[64];
        int n = epoll_wait(poll, ready, 64, -1);
        for (int i = 0; i < n; i++) {
            int fd = ready[i].data.fd;
            if (fd == listener) {
                e.data.fd = accept(listener, NULL, NULL);
                epoll_ctl(poll, EPOLL_CTL_ADD, e.data.fd, &e);
                continue;
            }
            ssize_t got = read(fd, buffer, sizeof buffer);
            if (got <= 0) close(fd);
            else put(fd, buffer, got);
        }
    }
}

int main(int argc, char **argv) {
    static unsigned char frame[FRAME], frames[IN_FLIGHT * FRAME];
    if (argc < 3) return 2;
    const char *verb = argv[1];
    if (!strcmp(verb, "echo")) return echo(argv[2]);
    long n = argc > 3 ? atol(argv[3]) : 0;
    if (!strcmp(verb, "rtt")) {
        int fd = connected(argv[2]);
        uint64_t *times = calloc(n, sizeof *times);
        for (long i = -100; i < n; i++) {
            question(frame, i + 1000);
            uint64_t begin = now();
            put(fd, frame, FRAME);
            get(fd, frame, FRAME);
            if (i >= 0) times[i] = now() - begin;
        }
        tell(times, n);
    } else if (!strcmp(verb, "pipe")) {
        int fd = connected(argv[2]);
        for (int i = 0; i < IN_FLIGHT; i++) question(frames + i * FRAME, i + 1);
        uint64_t begin = now();
        put(fd, frames, sizeof frames);
        for (long i = IN_FLIGHT; i < n; i++) {
            get(fd, frame, FRAME);
            put(fd, frames, FRAME);
        }
        for (int i = 0; i < IN_FLIGHT; i++) get(fd, frame, FRAME);
        printf("{\"frames\": %.0f}\n", n / ((now() - begin) / 1e9));
    } else {
        long rounds = argc > 4 ? atol(argv[4]) : 0;
        int *fds = calloc(n, sizeof *fds);
        room(n + 64);
        for (long i = 0; i < n; i++) {
            char path[200];
            snprintf(path, sizeof path, "%s%ld", argv[2], i);
            fds[i] = connected(strcmp(verb, "same") ? path : argv[2]);
        }
        if (!strcmp(verb, "idle")) {
            puts("{}");
            fflush(stdout);
            while (read(0, frame, FRAME) > 0) {}
            return 0;
        }
        uint64_t *times = calloc(n * rounds, sizeof *times);
        for (long r = 0; r < rounds; r++)
            for (long i = 0; i < n; i++) {
                question(frame, r * n + i + 1);
                uint64_t begin = now();
                put(fds[i], frame, FRAME);
                get(fds[i], frame, FRAME);
                times[r * n + i] = now() - begin;
            }
        tell(times, n * rounds);
    }
    return 0;
}
