// SPDX-License-Identifier: Apache-2.0
// Only execve, without a C library: what the kernel alone takes for one more program. With UNSHARE it makes these namespaces first:
// what the kernel alone takes for those.

static long call(long number, const void *first, const void *second, const void *third, long fourth, long fifth) {
#if defined(__x86_64__)
  long result;
  register long r10 __asm__("r10") = fourth, r8 __asm__("r8") = fifth;
  __asm__ volatile("syscall"
                   : "=a"(result)
                   : "a"(number), "D"(first), "S"(second), "d"(third), "r"(r10), "r"(r8)
                   : "rcx", "r11", "memory");
  return result;
#elif defined(__aarch64__)
  register long x8 __asm__("x8") = number, x3 __asm__("x3") = fourth, x4 __asm__("x4") = fifth;
  register const void *x0 __asm__("x0") = first, *x1 __asm__("x1") = second, *x2 __asm__("x2") = third;
  __asm__ volatile("svc 0" : "+r"(x0) : "r"(x8), "r"(x1), "r"(x2), "r"(x3), "r"(x4) : "memory");
  return (long)x0;
#endif
}

#if defined(__x86_64__)
enum { EXECVE = 59, EXIT = 60, MOUNT = 165, UNSHARE_CALL = 272 };
__asm__(".globl _start\n_start: mov %rsp, %rdi\n and $-16, %rsp\n call run\n");
#elif defined(__aarch64__)
enum { EXECVE = 221, EXIT = 93, MOUNT = 40, UNSHARE_CALL = 97 };
__asm__(".globl _start\n_start: mov x0, sp\n bl run\n");
#endif

// CLONE_NEWNS, and MS_REC | MS_SLAVE.
enum { MOUNTS = 0x20000, FOLLOW = 0x4000 | 0x80000 };

static void end(long code) {
  for (;;) call(EXIT, (void *)code, 0, 0, 0, 0);
}

// As the kernel leaves them: the number of arguments, the arguments, a null, the environment, a null.
__attribute__((used, noreturn)) void run(void **stack) {
  void **arguments = stack + 1, **environment = arguments + (long)*stack + 1;
#ifdef UNSHARE
  if (call(UNSHARE_CALL, (void *)UNSHARE, 0, 0, 0, 0)) end(126);
  if (UNSHARE == MOUNTS && call(MOUNT, 0, "/", 0, FOLLOW, 0)) end(125);
#endif
  call(EXECVE, RUNTIME, arguments, environment, 0, 0);
  end(127);
  __builtin_unreachable();
}
