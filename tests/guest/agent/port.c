#include "port.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* A daemon that died in mid-frame leaves its half here; its successor starts afresh. The pieces of one
 * frame are never this far apart. */
enum { PARTIAL_FRAME_TIMEOUT_MS = 1000 };

/* Without a host, poll() always returns at once, so check at this interval instead. */
enum { HOST_ABSENT_PAUSE_MS = 20 };

/* poll() counts in an int; a deadline may be "never". */
enum { LONGEST_POLL_MS = 60 * 1000 };

static int port = -1;
static bool host_present;
static uint8_t buffer[16 * FRAME_SIZE];
static size_t filled;
static int64_t last_read;

int64_t now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_BOOTTIME, &t);
    return t.tv_sec * 1000LL + t.tv_nsec / 1000000;
}

void sleep_ms(int64_t duration)
{
    if (duration > 0)
        usleep((useconds_t)duration * 1000);
}

static void discard(size_t count)
{
    filled -= count;
    memmove(buffer, buffer + count, filled);
}

/* Is a whole frame at the start of the buffer? Skips what cannot be the start of one. */
static bool frame_buffered(void)
{
    size_t skip = 0;

    while (filled - skip >= HEADER_SIZE && !frame_plausible(buffer + skip))
        skip++;
    if (skip > 0) {
        printf("vchannel: skipped %zu bytes: no frame starts there\n", skip);
        discard(skip);
    }
    return filled >= FRAME_SIZE;
}

static size_t partial_frame(void) { return filled % FRAME_SIZE; }

static void drop_partial_frame(const char *why)
{
    if (partial_frame() == 0)
        return;
    printf("vchannel: dropped %zu bytes: %s\n", partial_frame(), why);
    filled -= partial_frame();
}

static void note_host(bool present)
{
    if (present == host_present)
        return;
    host_present = present;
    printf("vchannel: host %s\n", present ? "connected" : "disconnected");
}

/* Moves what has arrived into the buffer; false when there is nothing. */
static bool read_some(void)
{
    ssize_t count = read(port, buffer + filled, sizeof buffer - filled);
    if (count <= 0)
        return false;
    filled += (size_t)count;
    last_read = now_ms();
    return true;
}

/* poll() for `events`, at the latest until a partial frame is dropped. */
static short poll_port(short events, int64_t deadline)
{
    struct pollfd p = {.fd = port, .events = events};
    int64_t wake = deadline;

    if (partial_frame() > 0 && wake > last_read + PARTIAL_FRAME_TIMEOUT_MS)
        wake = last_read + PARTIAL_FRAME_TIMEOUT_MS;
    wake -= now_ms();
    if (wake > LONGEST_POLL_MS)
        wake = LONGEST_POLL_MS;
    poll(&p, 1, wake > 0 ? (int)wake : 0);
    note_host(!(p.revents & POLLHUP));
    return p.revents;
}

bool port_open(const char *path)
{
    port = open(path, O_RDWR | O_NONBLOCK | O_CLOEXEC);
    if (port < 0)
        return false;
    poll_port(0, 0); /* shows at once whether a host is connected */
    return true;
}

int port_wait(int wanted, int64_t deadline)
{
    int possible = frame_buffered() ? PORT_FRAME & wanted : 0;

    while (possible == 0) {
        /* Reads even when only room is wanted: the host may be waiting for us to take its frames
         * before it takes ours. */
        short events = (filled < sizeof buffer ? POLLIN : 0) | (wanted & PORT_ROOM ? POLLOUT : 0);
        short found = poll_port(events, deadline);

        if (!((found & POLLIN) && read_some()) && !host_present) {
            drop_partial_frame("the host went away in mid-frame");
            sleep_ms(HOST_ABSENT_PAUSE_MS);
        } else if (now_ms() >= last_read + PARTIAL_FRAME_TIMEOUT_MS) {
            drop_partial_frame("the rest of the frame never came");
        }
        possible = (frame_buffered() ? PORT_FRAME : 0) | (found & POLLOUT ? PORT_ROOM : 0);
        possible &= wanted;
        if (now_ms() >= deadline)
            break;
    }
    return possible;
}

bool port_send(const struct frame *frame, int64_t deadline)
{
    /* The driver takes a write of this size whole or not at all, so half a frame is never left over.
     * It refuses while QEMU is holding the port back, or no host is there. */
    while (write(port, frame, FRAME_SIZE) != FRAME_SIZE)
        if (port_wait(PORT_ROOM, deadline) == 0)
            return false;
    return true;
}

bool port_receive(struct frame *frame, int64_t deadline)
{
    if (port_wait(PORT_FRAME, deadline) == 0)
        return false;
    memcpy(frame, buffer, FRAME_SIZE);
    discard(FRAME_SIZE);
    return true;
}
