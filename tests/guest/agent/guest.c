#include "guest.h"

#include "port.h"

#include <arpa/inet.h>
#include <fcntl.h>
#include <net/if.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/reboot.h>
#include <sys/socket.h>
#include <unistd.h>

static const char INTERFACE[] = "eth0";

/* A reply written just before the power goes must have left the virtqueue by then: QEMU takes it out in
 * its main loop, after the write has returned here. */
enum { LAST_REPLY_LEAVES_MS = 100 };

/* Asks the kernel for a property of the interface; false if the interface or the property is missing. */
static bool interface_query(unsigned long what, struct ifreq *query)
{
    int s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    bool known;

    memset(query, 0, sizeof *query);
    strncpy(query->ifr_name, INTERFACE, IFNAMSIZ - 1);
    known = s >= 0 && ioctl(s, what, query) == 0;
    close(s);
    return known;
}

const char *guest_ip(void)
{
    static char text[INET_ADDRSTRLEN];
    struct ifreq query;
    struct sockaddr_in *address = (struct sockaddr_in *)&query.ifr_addr;

    text[0] = '\0';
    if (interface_query(SIOCGIFADDR, &query))
        inet_ntop(AF_INET, &address->sin_addr, text, sizeof text);
    return text;
}

const char *guest_uptime(void)
{
    static char text[24];
    snprintf(text, sizeof text, "%lld", (long long)(now_ms() / 1000));
    return text;
}

/* eth0's element of .data.ip.data: nothing without the interface, no "ip" before it has one. */
static void describe_interface(char *text, size_t size)
{
    struct ifreq query;
    const char *ip = guest_ip();

    text[0] = '\0';
    if (!interface_query(SIOCGIFINDEX, &query))
        return;
    if (ip[0] == '\0')
        snprintf(text, size, "{\"name\":\"%s\"}", INTERFACE);
    else
        snprintf(text, size, "{\"ip\":\"%s\",\"name\":\"%s\"}", ip, INTERFACE);
}

const char *guest_information(void)
{
    static char text[256];
    char interface[128];

    describe_interface(interface, sizeof interface);
    snprintf(text, sizeof text,
             "{\"data\":{\"dsm_setting\":{\"data\":{\"http_port\":5000}},"
             "\"ip\":{\"data\":[%s]}}}",
             interface);
    return text;
}

void guest_power(enum power what)
{
    printf("vchannel: %s\n", what == POWER_OFF ? "powering off" : "rebooting");
    sleep_ms(LAST_REPLY_LEAVES_MS);
    sync();
    reboot(what == POWER_OFF ? RB_POWER_OFF : RB_AUTOBOOT);
    perror("vchannel: reboot");
    _exit(1);
}

void guest_panic(void)
{
    int trigger = open("/proc/sysrq-trigger", O_WRONLY | O_CLOEXEC);

    printf("vchannel: panicking\n");
    if (trigger < 0 || write(trigger, "c", 1) != 1)
        perror("vchannel: sysrq-trigger");
    _exit(1);
}
