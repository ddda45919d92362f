/* spend: what a guest does in balloon.sh. Touches 300 MiB, says so, gives them back to its kernel, says so, and waits for a line. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define BYTES (300ul << 20)

int main(void)
{
    char *memory = mmap(0, BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {
        puts("SPEND-FAILED mmap");
        return 1;
    }
    for (unsigned long at = 0; at < BYTES; at += 8) *(unsigned long *)(memory + at) = at * 0x9e3779b97f4a7c15ul;
    puts("SPEND-TOUCHED");
    fflush(stdout);
    char line[80];
    if (!fgets(line, sizeof line, stdin)) return 1;
    munmap(memory, BYTES);
    puts("SPEND-FREED");
    fflush(stdout);
    if (!fgets(line, sizeof line, stdin)) return 1;
    /* What comes back is zero, and the rest of the kernel's memory is as it was. */
    memory = mmap(0, BYTES / 2, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {
        puts("SPEND-FAILED mmap");
        return 1;
    }
    for (unsigned long at = 0; at < BYTES / 2; at += 8) {
        if (*(unsigned long *)(memory + at)) {
            puts("SPEND-FAILED not zero");
            return 1;
        }
    }
    puts("SPEND-OK");
    return 0;
}
