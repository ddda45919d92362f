/* memwork MIB WORKING ROUNDS: what paging.py runs in a guest, built static.
 *
 * Fills MIB of memory (a third of the pages noise, a third text-like, a third mostly zero), then works on the first WORKING MiB
 * in rounds: each page is visited in a scattered order, 64 words of it are read and one is written. Prints each round's
 * milliseconds, and at the end a checksum of all bytes, which depends on nothing but the arguments.
 */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>

static uint64_t state = 0x9e3779b97f4a7c15u;

static uint64_t next(void)
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return t.tv_sec * 1e3 + t.tv_nsec / 1e6;
}

int main(int argc, char **argv)
{
    if (argc != 4) {
        fprintf(stderr, "usage: memwork MIB WORKING ROUNDS\n");
        return 2;
    }
    size_t pages = (size_t)atoi(argv[1]) * 256, count = (size_t)atoi(argv[2]) * 256;
    if (count > pages)
        count = pages;
    int rounds = atoi(argv[3]);
    uint64_t *memory = mmap(NULL, pages * 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {
        perror("memwork");
        return 1;
    }
    double start = now();
    for (size_t page = 0; page < pages; page++) {
        uint64_t *words = memory + page * 512;
        for (size_t i = 0; i < 512; i++) {
            switch (page % 3) {
            case 0: words[i] = next(); break;
            case 1: words[i] = 0x6120656e696c2061u + (next() & 0x0f0f); break;
            default:
                if (i % 64 == 0)
                    words[i] = next();
            }
        }
    }
    printf("filled %zu MiB in %.0f ms\n", pages / 256, now() - start);
    uint64_t sum = 0;
    for (int round = 0; round < rounds; round++) {
        start = now();
        /* An odd step visits each page of a power of two once; those beyond the end are left out. */
        size_t span = 1;
        while (span < count)
            span *= 2;
        for (size_t i = 0; i < span; i++) {
            size_t page = (i * 0x9e3779b1u + round) & (span - 1);
            if (page >= count)
                continue;
            uint64_t *words = memory + page * 512;
            for (size_t k = 0; k < 64; k++)
                sum = (sum << 5 | sum >> 59) ^ words[(k * 37 + round) & 511];
            words[(page + round) & 511] += sum;
        }
        printf("round %d %.1f ms\n", round, now() - start);
        fflush(stdout);
    }
    for (size_t i = 0; i < pages * 512; i++)
        sum = (sum << 5 | sum >> 59) ^ memory[i];
    printf("checksum %016llx\n", (unsigned long long)sum);
    return 0;
}
