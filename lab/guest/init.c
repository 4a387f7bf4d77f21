/* The first process of a node: loads what the root disk needs, mounts it, hands over to its init.
 *
 * Takes the place of an initramfs generator and of udev in the initramfs, which together cost an emulated
 * boot several seconds. Built static; /modules names the kernel modules to load, one file a line, in order.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#define ROOT_DISK "/dev/vda"
#define WAIT_MS 20000

static void fail(const char *what)
{
    fprintf(stderr, "lab: %s: %s\n", what, strerror(errno));
    reboot(RB_POWER_OFF);
    _exit(1);
}

static void load_modules(void)
{
    char line[256];
    FILE *list = fopen("/modules", "r");
    if (!list)
        fail("/modules");
    while (fgets(line, sizeof line, list)) {
        line[strcspn(line, "\n")] = 0;
        int file = open(line, O_RDONLY | O_CLOEXEC);
        if (file < 0 || (syscall(SYS_finit_module, file, "", 0) != 0 && errno != EEXIST))
            fail(line);
        close(file);
    }
    fclose(list);
}

int main(void)
{
    /* The probe for hardware virtualisation waits for this very line. */
    fprintf(stderr, "lab: kernel is up\n");
    mkdir("/dev", 0755);
    mkdir("/root", 0755);
    if (mount("devtmpfs", "/dev", "devtmpfs", 0, "") != 0 && errno != EBUSY)
        fail("devtmpfs");
    load_modules();
    for (int waited = 0; access(ROOT_DISK, F_OK) != 0; waited += 10) {
        if (waited > WAIT_MS)
            fail(ROOT_DISK);
        usleep(10000);
    }
    if (mount(ROOT_DISK, "/root", "ext4", MS_NOATIME, "") != 0)
        fail("mounting " ROOT_DISK);
    if (mount("/dev", "/root/dev", NULL, MS_MOVE, NULL) != 0)
        fail("moving /dev");
    if (chdir("/root") != 0 || mount(".", "/", NULL, MS_MOVE, NULL) != 0 || chroot(".") != 0 || chdir("/") != 0)
        fail("changing root");
    execl("/sbin/init", "init", (char *)NULL);
    fail("/sbin/init");
}
