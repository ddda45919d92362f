/* play: what a guest does in sound.sh. By ALSA's own interface to the kernel (<sound/asound.h>), without a library: sets the
 * volumes, plays at 48,000 and at 44,100 frames a second, records half a second, and beeps by the console.
 * Prints PLAY-OK at the end, or what failed. */
#include <errno.h>
#include <fcntl.h>
#include <linux/kd.h>
#include <sound/asound.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>
#include <unistd.h>

static void fail(const char *what)
{
    printf("PLAY-FAILED %s: %s\n", what, strerror(errno));
    exit(1);
}

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec + now.tv_nsec / 1e9;
}

static void set_control(const char *name, long value)
{
    int control = open("/dev/snd/controlC0", O_RDWR);
    struct snd_ctl_elem_value element = {0};
    if (control < 0) fail("/dev/snd/controlC0");
    element.id.iface = SNDRV_CTL_ELEM_IFACE_MIXER;
    strcpy((char *)element.id.name, name);
    element.value.integer.value[0] = element.value.integer.value[1] = value;
    if (ioctl(control, SNDRV_CTL_IOCTL_ELEM_WRITE, &element) < 0) fail(name);
    close(control);
}

static void set_mask(struct snd_pcm_hw_params *params, int which, unsigned value)
{
    struct snd_mask *mask = &params->masks[which - SNDRV_PCM_HW_PARAM_FIRST_MASK];
    memset(mask, 0, sizeof *mask);
    mask->bits[value / 32] = 1u << value % 32;
}

static void set_interval(struct snd_pcm_hw_params *params, int which, unsigned value)
{
    struct snd_interval *interval = &params->intervals[which - SNDRV_PCM_HW_PARAM_FIRST_INTERVAL];
    memset(interval, 0, sizeof *interval);
    interval->min = interval->max = value;
    interval->integer = 1;
}

/* Frames of a part of the driver's ring. */
#define RING_PERIOD 1024

/* A stream of two channels of 16 bits. */
static int stream(const char *path, int flags, unsigned rate)
{
    struct snd_pcm_hw_params params = {0};
    int pcm = open(path, flags);
    unsigned n;
    if (pcm < 0) fail(path);
    memset(params.masks, 0xFF, sizeof params.masks);
    for (n = 0; n < sizeof params.intervals / sizeof *params.intervals; n++) params.intervals[n].max = ~0u;
    set_mask(&params, SNDRV_PCM_HW_PARAM_ACCESS, SNDRV_PCM_ACCESS_RW_INTERLEAVED);
    set_mask(&params, SNDRV_PCM_HW_PARAM_FORMAT, SNDRV_PCM_FORMAT_S16_LE);
    set_interval(&params, SNDRV_PCM_HW_PARAM_CHANNELS, 2);
    set_interval(&params, SNDRV_PCM_HW_PARAM_RATE, rate);
    set_interval(&params, SNDRV_PCM_HW_PARAM_PERIOD_SIZE, RING_PERIOD);
    set_interval(&params, SNDRV_PCM_HW_PARAM_PERIODS, 8);
    params.rmask = ~0u;
    if (ioctl(pcm, SNDRV_PCM_IOCTL_HW_PARAMS, &params) < 0) fail("hardware parameters");
    if (ioctl(pcm, SNDRV_PCM_IOCTL_PREPARE) < 0) fail("prepare");
    return pcm;
}

/* Almost a second of a triangle of so many frames, in whole periods of the ring: what follows in it is not heard. */
static void play(unsigned rate, int period)
{
    unsigned count = rate / RING_PERIOD * RING_PERIOD, n;
    short *frames = malloc(count * 4);
    struct snd_xferi transfer = {0, frames, count};
    int pcm = stream("/dev/snd/pcmC0D0p", O_RDWR, rate);
    double began = seconds();
    for (n = 0; n < count; n++) {
        int place = n % period, half = period / 2, up = place < half ? place : period - place;
        frames[2 * n] = (up * 4 - period) * 8000 / period;
        frames[2 * n + 1] = -frames[2 * n];
    }
    if (ioctl(pcm, SNDRV_PCM_IOCTL_WRITEI_FRAMES, &transfer) < 0) fail("write");
    if (transfer.result != (long)count) fail("all frames: the ring ran dry, as on a host without time");
    if (ioctl(pcm, SNDRV_PCM_IOCTL_DRAIN) < 0) fail("drain");
    printf("played %u frames in %.3f s\n", count, seconds() - began);
    close(pcm);
}

static void record(unsigned rate)
{
    unsigned count = rate / 2, n;
    short *frames = malloc(count * 4);
    struct snd_xferi transfer = {0, frames, count};
    int pcm = stream("/dev/snd/pcmC0D0c", O_RDWR, rate);
    double began = seconds();
    memset(frames, 0x55, count * 4);
    if (ioctl(pcm, SNDRV_PCM_IOCTL_READI_FRAMES, &transfer) < 0) fail("read");
    if (transfer.result != (long)count) fail("all frames: the ring ran over, as on a host without time");
    double took = seconds() - began;
    for (n = 0; n < 2 * count; n++)
        if (frames[n] != 0) fail("silence");
    printf("recorded %u frames of silence in %.3f s\n", count, took);
    if (took < 0.4 || took > 0.7) fail("the pace of recording");
    close(pcm);
}

static void beep(int hertz)
{
    int console = open("/dev/tty0", O_RDWR);
    if (console < 0) fail("/dev/tty0");
    if (ioctl(console, KIOCSOUND, 1193180 / hertz) < 0) fail("beep");
    usleep(300000);
    ioctl(console, KIOCSOUND, 0);
    usleep(100000);
    close(console);
}

int main(void)
{
    set_control("Master Playback Switch", 1);
    set_control("Master Playback Volume", 31);
    set_control("PCM Playback Switch", 1);
    set_control("PCM Playback Volume", 23);
    play(48000, 48);
    usleep(100000);
    play(44100, 100);
    record(48000);
    beep(880);
    puts("PLAY-OK");
    return 0;
}
