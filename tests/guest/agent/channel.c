#include "channel.h"

#include "commands.h"
#include "guest.h"
#include "port.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

/* A host that has not read a reply by then no longer waits for it. */
enum { REPLY_TIMEOUT_MS = 10000 };

static const struct options *options;

/* The request under way. One at a time: each genuine caller waits for its answer too. */
static struct {
    struct frame request, answer;
    bool pending, answered;
} asked;

void channel_init(const struct options *given) { options = given; }

/* ---- serving the host -------------------------------------------------------------------------- */

static const char *const NAMES[] = {
    [GUEST_TEST] = "test",
    [GUEST_GET_IP] = "get_ip",
    [GUEST_GET_UPTIME] = "get_uptime",
    [GUEST_POWEROFF] = "poweroff",
    [GUEST_REBOOT] = "reboot",
    [GUEST_GET_INFORMATION] = "get_information",
    [GUEST_FS_FREEZE] = "fs_freeze",
    [GUEST_FS_UNFREEZE] = "fs_unfreeze",
};

static const char *name_of(int32_t command)
{
    bool known = command >= 0 && (size_t)command < sizeof NAMES / sizeof *NAMES && NAMES[command];
    return known ? NAMES[command] : "unknown";
}

static const char *reply_text(int32_t command)
{
    switch (command) {
    case GUEST_GET_IP:
        return guest_ip();
    case GUEST_GET_UPTIME:
        return guest_uptime();
    case GUEST_GET_INFORMATION:
        return guest_information();
    default:
        return "";
    }
}

static void reply_to(const struct frame *request)
{
    struct frame reply;

    frame_reply(&reply, request, reply_text(request->command));
    if (options->no_echo)
        reply.request_id = 0;
    if (!port_send(&reply, now_ms() + REPLY_TIMEOUT_MS))
        printf("vchannel: reply %d not taken\n", request->command);
}

static void act_on(int32_t command)
{
    if (command == GUEST_POWEROFF && !options->ignore_poweroff)
        guest_power(POWER_OFF);
    if (command == GUEST_REBOOT)
        guest_power(POWER_REBOOT);
}

static void serve(const struct frame *request)
{
    printf("vchannel: request %d %s\n", request->command, name_of(request->command));
    if (options->mode == MODE_NEVER)
        return;
    if (request->needs_response)
        reply_to(request);
    act_on(request->command); /* after the reply, because the guest may end now */
}

/* ---- what comes in ----------------------------------------------------------------------------- */

static bool is_awaited(const struct frame *answer)
{
    return asked.pending && answer->request_id == asked.request.request_id &&
           answer->command == asked.request.command;
}

static void accept_answer(const struct frame *answer)
{
    const char *wrong = frame_wrong_answer(answer, &asked.request);

    if (wrong)
        printf("vchannel: wrong answer %d: %s\n", answer->command, wrong);
    asked.answer = *answer;
    asked.pending = false;
    asked.answered = true;
}

void channel_handle(const struct frame *frame)
{
    if (frame->is_request)
        serve(frame);
    else if (is_awaited(frame))
        accept_answer(frame);
    else
        printf("vchannel: stale answer %d\n", frame->command);
}

void channel_serve(int64_t deadline)
{
    struct frame frame;
    while (port_receive(&frame, deadline))
        channel_handle(&frame);
}

/* ---- asking the host --------------------------------------------------------------------------- */

bool channel_ask_quietly(int32_t command, uint64_t guest_id)
{
    int64_t deadline = now_ms() + options->timeout_ms;
    struct frame frame;

    frame_request(&asked.request, guest_id, command, true);
    asked.answered = false;
    asked.pending = port_send(&asked.request, deadline);
    while (asked.pending && port_receive(&frame, deadline))
        channel_handle(&frame);
    asked.pending = false;
    return asked.answered;
}

/* Escapes the host's text to one console line, because tests read lines, and control bytes would affect a terminal. */
static void print_escaped(const char *text)
{
    for (; *text; text++) {
        if (isprint((unsigned char)*text) && *text != '\\')
            putchar(*text);
        else
            printf("\\x%02x", (unsigned char)*text);
    }
}

bool channel_ask(int32_t command, const char *name, uint64_t guest_id)
{
    int64_t start = now_ms();

    if (!channel_ask_quietly(command, guest_id)) {
        printf("vchannel: timeout %d %s\n", command, name);
        return false;
    }
    asked.answer.data[DATA_SIZE - 1] = '\0';
    printf("vchannel: answer %d %s [%" PRId64 " ms] ", command, name, now_ms() - start);
    print_escaped(asked.answer.data);
    putchar('\n');
    return true;
}

void channel_notify(int32_t command, const char *name, uint64_t guest_id, const char *text)
{
    struct frame frame;

    frame_request(&frame, guest_id, command, false);
    strncpy(frame.data, text, DATA_SIZE - 1);
    frame.request_length = (int32_t)strlen(frame.data);
    printf("vchannel: %s %d %s%s%s\n",
           port_send(&frame, now_ms() + options->timeout_ms) ? "notified" : "not notified", command, name,
           *text ? " " : "", text);
}
