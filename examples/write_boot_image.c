/*
 * Writes a boot image for `bootproof run`: a second, independent writer of docs/boot-image.md, to
 * start from in a VMM of your own. Loads an x86_64 vmlinux for the 64-bit Linux boot protocol.
 *
 *     cc -O2 -o write_boot_image write_boot_image.c
 *     bootproof initramfs proof.cpio && mkdir image
 *     ./write_boot_image vmlinux proof.cpio "console=ttyS0 reboot=t panic=-1 nokaslr \
 *         rdinit=/bootproof/init bootproof.nonce=my-first-image" image
 *     bootproof run image
 *
 * Documentation/arch/x86/boot.rst and zero-page.rst; Intel SDM vol. 3A sections 3.4.5 and 4.5.
 */
#include <elf.h>
#include <err.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { GDT = 0x500, ZERO_PAGE = 0x7000, PAGE_TABLES = 0x9000, CMDLINE = 0x20000 };
enum { RAM_SIZE = 512 << 20, HIGH_MEMORY = 1 << 20, EBDA = 0x9fc00, CMDLINE_MAX = 2047 };
#ifdef BREAK_RSI /* a mistake for bootproof to find */
enum { RSI = ZERO_PAGE + 0x1000 };
#else
enum { RSI = ZERO_PAGE };
#endif

static uint8_t *ram;

static void put(uint64_t address, uint64_t value, int size) { memcpy(ram + address, &value, size); }

static uint8_t *map(const char *path, size_t *size, int create)
{
    struct stat info;
    int fd = open(path, create ? O_RDWR | O_CREAT | O_EXCL : O_RDONLY, 0666);
    if (fd < 0 || (create && ftruncate(fd, RAM_SIZE)) || fstat(fd, &info))
        err(2, "%s", path);
    *size = info.st_size;
    uint8_t *data = mmap(NULL, *size, PROT_READ | (create ? PROT_WRITE : 0), MAP_SHARED, fd, 0);
    if (data == MAP_FAILED)
        err(2, "%s", path);
    return data;
}

/* Copies each segment to its physical address, BSS included in the bounds; gives the entry. */
static uint64_t load_elf(const char *path, uint64_t *start, uint64_t *end)
{
    size_t size;
    const uint8_t *file = map(path, &size, 0);
    const Elf64_Ehdr *elf = (const void *)file;
    if (size < sizeof *elf || memcmp(elf->e_ident, ELFMAG "\2\1", 6) || elf->e_phoff > size ||
        elf->e_phnum > (size - elf->e_phoff) / sizeof(Elf64_Phdr))
        errx(2, "%s: no vmlinux", path);
    const Elf64_Phdr *p = (const void *)(file + elf->e_phoff);
    for (int i = 0; i < elf->e_phnum; i++, p++) {
        if (p->p_type != PT_LOAD)
            continue;
        if (p->p_filesz > size || p->p_offset > size - p->p_filesz || p->p_filesz > p->p_memsz ||
            p->p_memsz > RAM_SIZE || p->p_paddr < HIGH_MEMORY || p->p_paddr > RAM_SIZE - p->p_memsz)
            errx(2, "%s: segment %d fits neither file nor RAM", path, i);
        memcpy(ram + p->p_paddr, file + p->p_offset, p->p_filesz);
        *start = p->p_paddr < *start ? p->p_paddr : *start;
        *end = p->p_paddr + p->p_memsz > *end ? p->p_paddr + p->p_memsz : *end;
    }
    return elf->e_entry;
}

static void e820(int number, uint64_t start, uint64_t end, uint32_t type)
{
    put(ZERO_PAGE + 0x2d0 + 20 * number, start, 8);
    put(ZERO_PAGE + 0x2d8 + 20 * number, end - start, 8);
    put(ZERO_PAGE + 0x2e0 + 20 * number, type, 4);
    put(ZERO_PAGE + 0x1e8, number + 1, 1);
}

static void region(FILE *json, const char *name, uint64_t address, uint64_t size, const char *after)
{
    fprintf(json, "    {\"name\": \"%s\", \"address\": \"%#jx\", \"size\": \"%#jx\"}%s\n", name,
            (uintmax_t)address, (uintmax_t)size, after);
}

static void write_description(FILE *json, uint64_t entry, uint64_t start, uint64_t end,
                              uint64_t initrd, uint64_t initrd_size)
{
    fprintf(json, "{\n  \"version\": 1, \"arch\": \"x86_64\", \"protocol\": \"linux64\",\n");
    fprintf(json, "  \"banks\": [{\"address\": 0, \"size\": %d, \"offset\": 0}],\n", RAM_SIZE);
    fprintf(json, "  \"cpus\": [{\n    \"rip\": \"%#jx\",", (uintmax_t)entry);
    fprintf(json, " \"rsi\": \"%#x\",\n", RSI);
    fprintf(json, "    \"cs\": {\"selector\": \"0x10\", \"attributes\": \"0xa09b\"},\n");
    for (int i = 0; i < 5; i++)
        fprintf(json, "    \"%cs\": {\"selector\": \"0x18\"},\n", "defgs"[i]);
    fprintf(json, "    \"gdtr\": {\"base\": \"%#x\", \"limit\": 31},\n", GDT);
    fprintf(json, "    \"cr0\": \"0x80000011\", \"cr3\": \"%#x\", \"cr4\": \"0x20\",", PAGE_TABLES);
    fprintf(json, " \"efer\": \"0x500\"\n  }],\n  \"regions\": [\n");
    region(json, "kernel", start, end - start, ",");
    region(json, "initrd", initrd, initrd_size, ",");
    region(json, "zero page", ZERO_PAGE, 0x1000, ",");
    region(json, "page tables", PAGE_TABLES, 0x6000, "");
    fprintf(json, "  ],\n  \"provenance\": {\"written by\": \"write_boot_image.c\"}\n}\n");
}

int main(int argc, char **argv)
{
    size_t ram_size, initrd_size;
    uint64_t start = RAM_SIZE, end = 0;
    char path[4096];
    if (argc != 5 || strlen(argv[3]) > CMDLINE_MAX || strlen(argv[4]) > 4000)
        errx(2, "usage: write_boot_image VMLINUX INITRD CMDLINE DIR");
    sprintf(path, "%s/ram.img", argv[4]);
    ram = map(path, &ram_size, 1);
    uint64_t entry = load_elf(argv[1], &start, &end);
    const uint8_t *initrd_data = map(argv[2], &initrd_size, 0);
    uint64_t initrd = (RAM_SIZE - initrd_size) & ~0xfffULL; /* at the end of RAM, page-aligned */
    if (initrd_size > RAM_SIZE || initrd < end)
        errx(2, "%s: no room behind the kernel", argv[2]);
    memcpy(ram + initrd, initrd_data, initrd_size);
    strcpy((char *)ram + CMDLINE, argv[3]);

    put(GDT + 0x10, 0x00af9b000000ffff, 8); /* __BOOT_CS: 64-bit code */
    put(GDT + 0x18, 0x00cf93000000ffff, 8); /* __BOOT_DS: data */
    put(PAGE_TABLES, (PAGE_TABLES + 0x1000) | 3, 8); /* 4 GiB mapped to themselves, 2 MiB pages */
    for (uint64_t gib = 0; gib < 4; gib++)
        put(PAGE_TABLES + 0x1000 + 8 * gib, (PAGE_TABLES + 0x2000 + 0x1000 * gib) | 3, 8);
    for (uint64_t page = 0; page < 2048; page++)
        put(PAGE_TABLES + 0x2000 + 8 * page, page << 21 | 0x83, 8);

    e820(0, 0, EBDA, 1);
    e820(1, EBDA, HIGH_MEMORY, 2);
    e820(2, HIGH_MEMORY, RAM_SIZE, 1);
    put(ZERO_PAGE + 0x1fe, 0xaa55, 2);     /* boot_flag */
    put(ZERO_PAGE + 0x202, 0x53726448, 4); /* "HdrS" */
    put(ZERO_PAGE + 0x206, 0x020c, 2);     /* protocol 2.12 */
    put(ZERO_PAGE + 0x210, 0xff, 1);       /* type_of_loader: none of the assigned ones */
    put(ZERO_PAGE + 0x211, 1, 1);          /* loadflags: LOADED_HIGH */
    put(ZERO_PAGE + 0x218, initrd, 4);
    put(ZERO_PAGE + 0x21c, initrd_size, 4);
    put(ZERO_PAGE + 0x228, CMDLINE, 4);

    if (munmap(ram, ram_size))
        err(2, "%s", path);
    FILE *json = chdir(argv[4]) ? NULL : fopen("boot.json.part", "w");
    if (json)
        write_description(json, entry, start, end, initrd, initrd_size);
    if (!json || fclose(json) || rename("boot.json.part", "boot.json")) /* last, and whole */
        err(2, "%s/boot.json", argv[4]);
    return 0;
}
