#include "frame.h"

#include <string.h>
#include <sys/random.h>

/* Both namespaces end below 20; a number of this size or more was read at a wrong offset. */
enum { MAX_COMMAND = 255 };

/* What a genuine guest puts into the UUID field is not known. This is no UUID on purpose: a host that
 * took it for an identity, or failed to repeat it, would show. */
static const char UUID_FIELD[16] = "stand-in guest.";

static bool is_flag(int32_t value) { return value == 0 || value == 1; }

static bool is_length(int32_t value) { return value >= 0 && value <= DATA_SIZE; }

static bool is_command(int32_t value) { return value >= 0 && value <= MAX_COMMAND; }

bool frame_plausible(const void *header)
{
    struct frame f;
    memcpy(&f, header, HEADER_SIZE);
    return is_flag(f.is_request) && is_flag(f.is_response) && f.is_request != f.is_response &&
           is_flag(f.needs_response) && is_length(f.request_length) && is_length(f.response_length) &&
           is_command(f.command) && is_command(f.subcommand) && f.reserved == 0;
}

/* Genuine ids were seen as four random bytes and four NULs. The pool may not be ready this early in a
 * boot; waiting for it would cost a second, and nothing here needs to be secret. */
static uint64_t random_id(void)
{
    uint32_t id = 0;
    while (id == 0)
        if (getrandom(&id, sizeof id, GRND_INSECURE) != sizeof id)
            id = 1;
    return id;
}

void frame_request(struct frame *frame, uint64_t guest_id, int32_t command, bool needs_response)
{
    memset(frame, 0, sizeof *frame);
    frame->request_id = random_id();
    memcpy(frame->guest_uuid, UUID_FIELD, sizeof frame->guest_uuid);
    frame->guest_id = guest_id;
    frame->is_request = 1;
    frame->needs_response = needs_response;
    frame->command = command;
    frame->subcommand = 1;
}

void frame_reply(struct frame *reply, const struct frame *request, const char *text)
{
    size_t length = strlen(text);

    memcpy(reply, request, HEADER_SIZE);
    memset(reply->data, 0, sizeof reply->data);
    reply->is_request = 0;
    reply->is_response = 1;
    reply->needs_response = 0;
    reply->request_length = 0;
    reply->response_length = 0;
    if (length > 0 && length < DATA_SIZE) {
        memcpy(reply->data, text, length);
        reply->response_length = (int32_t)length + 1; /* a text's closing NUL is counted */
    }
}

static bool only_zeros(const char *from, const char *end)
{
    while (from < end)
        if (*from++ != 0)
            return false;
    return true;
}

const char *frame_wrong_answer(const struct frame *answer, const struct frame *request)
{
    const char *text_end = answer->data + answer->response_length;

    if (memcmp(answer->guest_uuid, request->guest_uuid, sizeof answer->guest_uuid) != 0)
        return "guest UUID not repeated";
    if (answer->guest_id != request->guest_id)
        return "guest id not repeated";
    if (answer->subcommand != request->subcommand)
        return "sub-command not repeated";
    if (answer->needs_response != 0)
        return "an answer asks for a response";
    if (answer->response_length > 0 &&
        strnlen(answer->data, DATA_SIZE) + 1 != (size_t)answer->response_length)
        return "response length is not the text and its NUL";
    if (!only_zeros(text_end, answer->data + DATA_SIZE))
        return "data after the text is not zero";
    return NULL;
}
