/* The 4096-byte frame both sides of the channel speak, little-endian.
 *
 * Written from the protocol's byte table and from nothing else: this guest exists so that a second,
 * independent reading of that table can disagree with the Python codec. The guest is an x86 machine,
 * so the struct is the wire layout.
 */
#ifndef FRAME_H
#define FRAME_H

#include <stdbool.h>
#include <stdint.h>

enum { FRAME_SIZE = 4096, HEADER_SIZE = 64, DATA_SIZE = FRAME_SIZE - HEADER_SIZE };

struct frame {
    uint64_t request_id;
    uint8_t guest_uuid[16];
    uint64_t guest_id;
    int32_t is_request;
    int32_t is_response;
    int32_t needs_response;
    int32_t request_length;
    int32_t response_length;
    int32_t command;
    int32_t subcommand;
    int32_t reserved;
    char data[DATA_SIZE];
} __attribute__((packed));

_Static_assert(sizeof(struct frame) == FRAME_SIZE, "a frame is 4096 bytes");
_Static_assert(__builtin_offsetof(struct frame, data) == HEADER_SIZE, "data starts at 64");

/* Returns whether a frame could start at these HEADER_SIZE bytes. Text, padding and the middle of a frame violate these
 * rules, so a stream can be searched for the next frame after an incomplete one. */
bool frame_plausible(const void *header);

/* An empty request; the caller adds data. */
void frame_request(struct frame *frame, uint64_t guest_id, int32_t command, bool needs_response);

/* The reply to `request`: what a reply repeats is repeated, and `text` (may be empty) is its data. */
void frame_reply(struct frame *reply, const struct frame *request, const char *text);

/* Checks what an answer must repeat and must not contain. Returns the first violated rule, or NULL. */
const char *frame_wrong_answer(const struct frame *answer, const struct frame *request);

#endif
