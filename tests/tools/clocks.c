/* SPDX-License-Identifier: Apache-2.0 */
/* What the clocks read: a line of WALL MONOTONIC BOOTTIME WALL in microseconds. The wall clock is read before and after the others,
 * which shows how much came in between. With the name of a file, one such line every 5 ms is appended there until the end. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

static long long microseconds(clockid_t clock, int by_system_call) {
    struct timespec now;
    if (by_system_call ? syscall(SYS_clock_gettime, clock, &now) : clock_gettime(clock, &now)) return -1;
    return now.tv_sec * 1000000LL + now.tv_nsec / 1000;
}

int main(int argc, char **argv) {
    if (argc > 2) return 2;
    int file = argc == 2 ? open(argv[1], O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0644) : 1;
    if (file < 0) return perror(argv[1]), 1;
    /* As PID 1 it is handed orphans. */
    signal(SIGCHLD, SIG_IGN);
    for (int turn = 0;; turn++) {
        /* By system calls and by the vDSO in turn: each has its own idea of the namespace, and they must not differ. */
        int by_system_call = turn % 2;
        long long before = microseconds(CLOCK_REALTIME, by_system_call);
        long long monotonic = microseconds(CLOCK_MONOTONIC, by_system_call);
        long long boottime = microseconds(CLOCK_BOOTTIME, by_system_call);
        long long after = microseconds(CLOCK_REALTIME, by_system_call);
        if (dprintf(file, "%lld %lld %lld %lld\n", before, monotonic, boottime, after) < 0) return perror("write"), 1;
        if (argc == 1) return 0;
        /* A restore ends it early, which does no harm. */
        nanosleep(&(struct timespec){.tv_nsec = 5000000}, NULL);
    }
}
