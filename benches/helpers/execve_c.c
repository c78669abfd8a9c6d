// SPDX-License-Identifier: Apache-2.0
// Only execve, in C: with the C library's start and nothing else.

#include <unistd.h>

int main(int argc, char **argv) {
  (void)argc;
  execv(RUNTIME, argv);
  return 127;
}
