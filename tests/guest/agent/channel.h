/* Both directions of the channel: asking the host, and serving it.
 *
 * Every wait also serves the host, for which a genuine guest has separate daemons.
 */
#ifndef CHANNEL_H
#define CHANNEL_H

#include "frame.h"
#include "options.h"

/* Must be called first; `options` must stay valid. */
void channel_init(const struct options *options);

/* Asks and prints `answer` or `timeout`. True when the host answered within options.timeout_ms. */
bool channel_ask(int32_t command, const char *name, uint64_t guest_id);

/* The same without a line on the console. */
bool channel_ask_quietly(int32_t command, uint64_t guest_id);

/* Sends the host a notification, which has no answer. */
void channel_notify(int32_t command, const char *name, uint64_t guest_id, const char *text);

/* Serves the host forever. */
void channel_serve(int64_t deadline);

/* Serves `frame`, or prints that it is unsolicited. */
void channel_handle(const struct frame *frame);

#endif
