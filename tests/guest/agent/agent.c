/* The guest's side of the channel: asks what a guest asks at boot, then serves the host forever.
 *
 * Usage: agent PORT [NAME=VALUE ...]
 */
#include "channel.h"
#include "commands.h"
#include "guest.h"
#include "options.h"
#include "port.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum {
    LONG_MS = INT32_MAX,  /* 24 days: longer than this guest runs */
    LOOP_PAUSE_MS = 100,
    LINE_SIZE = 5 * DATA_SIZE,  /* an answer with every byte escaped, and then some */
};

static struct options options;

/* ---- a guest's boot ---------------------------------------------------------------------------- */

static void notify_of_boot(void)
{
    char epoch[24];

    snprintf(epoch, sizeof epoch, "%lld", (long long)time(NULL));
    channel_notify(HOST_POWER, "power", GUEST_ID, "");
    channel_notify(HOST_TIMESTAMP, "timestamp", TIMESTAMP_GUEST_ID, epoch);
}

/* The lines of the genuine installer when the host does not answer. Both give up. */
static void ask_update_deadline(void)
{
    if (channel_ask(HOST_UPDATE_DEADLINE, "update_deadline", GUEST_ID))
        return;
    puts("install.cgi: guest_command.c:86 Failed to retrieve message from host [timeout]");
    puts("install.cgi: vdsm_get_update_deadline.c:41 Failed to get vdsm update deadline.");
    puts("install.cgi: The vdsm is newer than license expire time.");
}

/* The lines of the genuine registration daemon, which never gives up. */
static void ask_serial(void)
{
    while (!channel_ask(HOST_GUEST_SERIAL, "guest_serial", GUEST_ID)) {
        puts("synoagentregisterd: guest_command.c:86 Failed to retrieve message from host [timeout]");
        puts("synoagentregisterd: vdsm_serial.c:84 Failed to get vdsm sn");
        puts("synoagentregisterd: vdsm_serial.c:128 Failed to get vdsm sn");
    }
}

static void ask_the_rest(void)
{
    channel_ask(HOST_GUEST_UUID, "guest_uuid", GUEST_ID);
    channel_ask(HOST_CLUSTER_UUID, "cluster_uuid", CLUSTER_GUEST_ID);
    channel_ask(HOST_SERIAL, "host_serial", GUEST_ID);
    channel_ask(HOST_DSM_VERSION, "host_version", GUEST_ID);
    channel_ask(HOST_GUEST_CPU, "guest_cpu", GUEST_ID);
    channel_ask(HOST_VMM_VERSION, "vmm_version", GUEST_ID);
    channel_ask(HOST_MAC, "host_mac", GUEST_ID);
    channel_ask(HOST_MODEL, "host_model", GUEST_ID);
}

/* ---- parameters of tests ----------------------------------------------------------------------- */

static bool answers_flood(const struct frame *frame, uint64_t first_id, bool *answered)
{
    uint64_t number = frame->request_id - first_id;

    if (frame->is_request || number >= (uint64_t)options.flood || answered[number])
        return false;
    answered[number] = true;
    return true;
}

/* Many requests outstanding at once. Sends and receives as each becomes possible: a host that waits
 * for us to take its answers takes no more requests. */
static void flood(void)
{
    bool *answered = calloc((size_t)options.flood, sizeof *answered);
    struct frame request, frame;
    int possible = PORT_ROOM;
    long sent = 0, count = 0;
    int64_t start = now_ms();
    uint64_t first_id;

    frame_request(&request, GUEST_ID, HOST_GUEST_SERIAL, true);
    first_id = request.request_id;
    while (count < options.flood && possible != 0) {
        possible = port_wait(sent < options.flood ? PORT_FRAME | PORT_ROOM : PORT_FRAME,
                             now_ms() + options.timeout_ms);
        if ((possible & PORT_ROOM) && port_send(&request, now_ms())) {
            request.request_id++;
            sent++;
        }
        if ((possible & PORT_FRAME) && port_receive(&frame, now_ms())) {
            if (answers_flood(&frame, first_id, answered))
                count++;
            else
                channel_handle(&frame);
        }
    }
    printf("vchannel: flood sent %ld answered %ld\n", sent, count);
    printf("vchannel: flood took %" PRId64 " ms\n", now_ms() - start);
    free(answered);
}

/* Prints a line for each question, forever, which shows when no daemon answers. */
static void ask_for_ever(void)
{
    for (long round = 1;; round++) {
        bool answered = channel_ask_quietly(HOST_GUEST_SERIAL, GUEST_ID);
        printf("vchannel: loop %ld %s\n", round, answered ? "ok" : "timeout");
        channel_serve(now_ms() + LOOP_PAUSE_MS);
    }
}

static void run_extras(void)
{
    if (options.flood > 0)
        flood();
    if (options.reboot)
        guest_power(POWER_REBOOT);
    if (options.panic_after_ms >= 0) {
        channel_serve(now_ms() + options.panic_after_ms);
        guest_panic();
    }
    if (options.loop)
        ask_for_ever();
}

/* ---- a guest's life ---------------------------------------------------------------------------- */

static void be_a_guest(void)
{
    notify_of_boot();
    ask_update_deadline();
    ask_serial();
    ask_the_rest();
    if (options.mode != MODE_NEVER) {
        printf("vchannel: asked everything by %.2f s\n", (double)now_ms() / 1000);
        puts("vchannel: ready");
        run_extras();
    }
    for (;;)
        channel_serve(now_ms() + LONG_MS);
}

static void stay_idle(const char *line)
{
    puts(line);
    for (;;)
        pause();
}

int main(int argc, char *argv[])
{
    setvbuf(stdout, NULL, _IOLBF, LINE_SIZE); /* a line is one write: the kernel shares the console */
    if (argc < 2) {
        fprintf(stderr, "usage: %s PORT [NAME=VALUE ...]\n", argv[0]);
        return 2;
    }
    options = options_parse(argc - 2, argv + 2);
    channel_init(&options);
    if (options.mode == MODE_SILENT)
        stay_idle("vchannel: silent");
    if (!port_open(argv[1])) {
        printf("vchannel: %s: %s\n", argv[1], strerror(errno));
        return 1;
    }
    if (options.mode == MODE_NOREAD)
        stay_idle("vchannel: never reads");
    be_a_guest();
}
