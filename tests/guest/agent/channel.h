/* Both directions of the channel: asking the host, and serving it.
 *
 * While anything here waits, the host is served: a genuine guest has separate daemons for that.
 */
#ifndef CHANNEL_H
#define CHANNEL_H

#include "frame.h"
#include "options.h"

/* Before anything else; `options` must stay. */
void channel_init(const struct options *options);

/* Asks and prints `answer` or `timeout`. True when the host answered within options.timeout_ms. */
bool channel_ask(int32_t command, const char *name, uint64_t guest_id);

/* The same without a line on the console. */
bool channel_ask_quietly(int32_t command, uint64_t guest_id);

/* Tells the host something that needs no answer. */
void channel_notify(int32_t command, const char *name, uint64_t guest_id, const char *text);

/* Serves the host and does nothing else. */
void channel_serve(int64_t deadline);

/* Serves `frame`, or prints that nobody asked for it. */
void channel_handle(const struct frame *frame);

#endif
