/* SPDX-License-Identifier: Apache-2.0 */
/* Runs a command that can make no time namespaces, as under a seccomp filter of systemd's or of a container engine's:
 * deny ERRNO|kill COMMAND [ARGUMENT...]. Those who ask get this error, or are killed. */
#define _GNU_SOURCE
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

enum { NEWTIME = 0x80 };

int main(int argc, char **argv) {
    if (argc < 3) return 2;
    unsigned answer = strcmp(argv[1], "kill") ? SECCOMP_RET_ERRNO | ((unsigned)atoi(argv[1]) & SECCOMP_RET_DATA) : SECCOMP_RET_KILL_PROCESS;
    /* The lower half of an argument comes first where this runs. Only unshare is looked at: clone has no room for the flag, and what
     * clone3 is given is behind a pointer. */
    struct sock_filter program[] = {
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr)),
        BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SYS_unshare, 0, 3),
        BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, args[0])),
        BPF_JUMP(BPF_JMP | BPF_JSET | BPF_K, NEWTIME, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, answer),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    struct sock_fprog filter = {.len = sizeof program / sizeof *program, .filter = program};
    /* Without CAP_SYS_ADMIN only a process that can gain no rights may have a filter. */
    if (prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter) && (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &filter)))
        return perror("install a filter"), 2;
    execvp(argv[2], argv + 2);
    return perror(argv[2]), 127;
}
