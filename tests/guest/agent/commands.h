/* The command numbers, with a separate set for each direction. */
#ifndef COMMANDS_H
#define COMMANDS_H

/* From the guest to the host: */
enum host_command {
    HOST_POWER = 3,
    HOST_DSM_VERSION = 4,
    HOST_GUEST_SERIAL = 5,
    HOST_GUEST_CPU = 7,
    HOST_VMM_VERSION = 8,
    HOST_GUEST_UUID = 11,
    HOST_CLUSTER_UUID = 12,
    HOST_SERIAL = 13,
    HOST_MAC = 14,
    HOST_MODEL = 15,
    HOST_UPDATE_DEADLINE = 16,
    HOST_TIMESTAMP = 17,
};

/* From the host to the guest: */
enum guest_command {
    GUEST_TEST = 0,
    GUEST_GET_IP = 2,
    GUEST_GET_UPTIME = 5,
    GUEST_POWEROFF = 6,
    GUEST_REBOOT = 8,
    GUEST_GET_INFORMATION = 10,
    GUEST_FS_FREEZE = 14,
    GUEST_FS_UNFREEZE = 15,
};

/* Guest ids as seen in the one public trace: the usual one, the cluster UUID's, the timestamp's. */
enum { GUEST_ID = 10000000, CLUSTER_GUEST_ID = 3000000, TIMESTAMP_GUEST_ID = 0 };

#endif
