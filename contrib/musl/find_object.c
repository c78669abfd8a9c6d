/* SPDX-License-Identifier: Apache-2.0 */
/* A function of glibc's, since 2.35, that Debian's libgcc asks where a program's tables for unwinding are: without it, it ends the program
 * when somebody wants to know the calls, as Rust does of every error with RUST_BACKTRACE=1. musl has only what it is made of here. */
#define _GNU_SOURCE
#include <link.h>
#include <stddef.h>

/* The first members of glibc's struct dl_find_object, on machines where that has no dlfo_eh_dbase. */
struct answer {
    unsigned long long flags;
    void *start, *end, *link_map, *tables;
};

struct question {
    ElfW(Addr) address;
    struct answer *answer;
};

static int look(struct dl_phdr_info *object, size_t size, void *data) {
    struct question *question = data;
    const ElfW(Phdr) *tables = NULL;
    int is_here = 0;
    (void)size;
    for (const ElfW(Phdr) *part = object->dlpi_phdr; part < object->dlpi_phdr + object->dlpi_phnum; part++) {
        if (part->p_type == PT_GNU_EH_FRAME) tables = part;
        if (part->p_type == PT_LOAD && question->address - object->dlpi_addr - part->p_vaddr < part->p_memsz) {
            is_here = 1;
            question->answer->start = (void *)(object->dlpi_addr + part->p_vaddr);
            question->answer->end = (void *)(object->dlpi_addr + part->p_vaddr + part->p_memsz);
        }
    }
    if (!is_here || !tables) return 0;
    question->answer->tables = (void *)(object->dlpi_addr + tables->p_vaddr);
    return 1;
}

int _dl_find_object(void *address, struct answer *answer) {
    *answer = (struct answer){0};
    return dl_iterate_phdr(look, &(struct question){(ElfW(Addr))address, answer}) ? 0 : -1;
}
