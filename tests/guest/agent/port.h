/* The virtio-serial port as a stream of frames, every wait with a deadline. */
#ifndef PORT_H
#define PORT_H

#include "frame.h"

/* Milliseconds since boot; deadlines are on this clock. */
int64_t now_ms(void);

void sleep_ms(int64_t duration);

/* Opens the one port this process talks through. False, with errno set, when that fails. */
bool port_open(const char *path);

/* What a wait can be for: a whole frame to receive, room to send one. */
enum { PORT_FRAME = 1, PORT_ROOM = 2 };

/* Waits for any of `wanted` and returns which; 0 when the deadline passed first. */
int port_wait(int wanted, int64_t deadline);

/* Writes one frame. False when the deadline passes first; nothing is written then. */
bool port_send(const struct frame *frame, int64_t deadline);

/* Waits for one whole frame. False when the deadline passes first; a partial one is kept. */
bool port_receive(struct frame *frame, int64_t deadline);

#endif
