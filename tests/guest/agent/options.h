/* The behaviour of this boot: the kernel parameters `vchannel.NAME=VALUE`, passed as NAME=VALUE. */
#ifndef OPTIONS_H
#define OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

enum mode {
    MODE_NORMAL,
    MODE_SILENT, /* never opens the port */
    MODE_NOREAD, /* opens the port and never reads it */
    MODE_NEVER,  /* asks, but answers nothing and never becomes ready */
};

struct options {
    enum mode mode;
    int64_t timeout_ms;     /* for each answer; the genuine guest's is not known */
    bool no_echo;           /* replies carry request id 0 */
    bool ignore_poweroff;   /* answers poweroff, and keeps running */
    long flood;             /* number of requests to send back to back once ready */
    bool loop;              /* asks for the serial forever once ready */
    int64_t panic_after_ms; /* after ready; negative for never */
    bool reboot;            /* reboots once ready */
};

/* Unknown words are named on the console and otherwise ignored. */
struct options options_parse(int count, char *const words[]);

#endif
