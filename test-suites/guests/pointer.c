/* pointer: what a guest does in tablet.sh. Finds the tablet among Linux's input devices and says what it reports, a line each:
 * "at X Y wheel W buttons B", until the right button goes down. Prints POINTER-OK at the end, or what failed. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/input.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

static void fail(const char *what)
{
    printf("POINTER-FAILED %s: %s\n", what, strerror(errno));
    exit(1);
}

static int tablet(void)
{
    for (int number = 0; number < 32; number++) {
        char path[32], name[64] = "";
        snprintf(path, sizeof path, "/dev/input/event%d", number);
        int device = open(path, O_RDONLY);
        if (device < 0) continue;
        if (ioctl(device, EVIOCGNAME(sizeof name), name) > 0 && !strcmp(name, "Umbra tablet")) return device;
        close(device);
    }
    errno = ENODEV;
    fail("Umbra tablet");
    return -1;
}

int main(void)
{
    int device = tablet();
    struct input_absinfo x, y;
    if (ioctl(device, EVIOCGABS(ABS_X), &x) < 0 || ioctl(device, EVIOCGABS(ABS_Y), &y) < 0) fail("axes");
    printf("POINTER-READY %d-%d %d-%d\n", x.minimum, x.maximum, y.minimum, y.maximum);
    fflush(stdout);
    int at[2] = {x.value, y.value}, wheel = 0;
    unsigned buttons = 0;
    struct input_event event;
    while (read(device, &event, sizeof event) == sizeof event) {
        if (event.type == EV_ABS && event.code <= ABS_Y) at[event.code] = event.value;
        if (event.type == EV_REL && event.code == REL_WHEEL) wheel += event.value;
        if (event.type == EV_KEY && event.code >= BTN_LEFT && event.code < BTN_LEFT + 5) {
            unsigned bit = 1u << (event.code - BTN_LEFT);
            buttons = event.value ? buttons | bit : buttons & ~bit;
        }
        if (event.type == EV_SYN) {
            printf("at %d %d wheel %d buttons %u\n", at[0], at[1], wheel, buttons);
            fflush(stdout);
            if (buttons & 2) {
                puts("POINTER-OK");
                return 0;
            }
        }
    }
    fail("read");
}
