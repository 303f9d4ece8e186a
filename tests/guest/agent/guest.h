/* Facts about this machine, and its power switch, for the host's requests. */
#ifndef GUEST_H
#define GUEST_H

/* "10.0.2.15", or "" while the interface has no IPv4 address. */
const char *guest_ip(void);

/* Whole seconds since boot, as text. */
const char *guest_uptime(void);

/* The JSON of get_information, of which only the paths to the port and to eth0's address are known. */
const char *guest_information(void);

enum power { POWER_OFF, POWER_REBOOT };

/* Does not return. */
void guest_power(enum power what);

/* Crashes the kernel. Does not return. */
void guest_panic(void);

#endif
