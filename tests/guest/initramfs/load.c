/* Loads drivers, in the order given: insmod for many files, as one process.
 *
 * Usage: load FILE.ko ...
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(int argc, char *argv[])
{
    int status = 0;

    for (int i = 1; i < argc; i++) {
        int file = open(argv[i], O_RDONLY | O_CLOEXEC);
        if (file < 0 || syscall(SYS_finit_module, file, "", 0) < 0) {
            printf("init: %s not loaded: %s\n", argv[i], strerror(errno));
            status = 1;
        }
        close(file);
    }
    return status;
}
