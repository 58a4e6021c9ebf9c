/*
 * Writes a boot image for `bootproof run`, as write_boot_image.c does, of a kernel that learns of its
 * machine from a device tree: loads an arm64 or riscv64 Image, and writes the tree of QEMU's machine
 * `virt` itself, to start from in a VMM of your own.
 *
 *     cc -O2 -o write_boot_image_dt write_boot_image_dt.c
 *     bootproof initramfs --arch riscv64 proof.cpio && mkdir image
 *     ./write_boot_image_dt Image proof.cpio "console=ttyS0 panic=-1 \
 *         rdinit=/bootproof/init bootproof.nonce=my-first-image" image
 *     bootproof run image
 *
 * Documentation/arch/arm64/booting.rst, arch/riscv/boot.rst and boot-image-header.rst of the kernel;
 * Devicetree Specification v0.4, chapters 3 and 5. For a little-endian host.
 */
#include <err.h>
#include <fcntl.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

enum { ARM64_MAGIC = 0x644d5241, RISCV64_MAGIC = 0x05435352, HEADER = 64 };
enum { RAM_SIZE = 512 << 20, BASE = 2 << 20, TREE_MAX = 0x2000, CMDLINE_MAX = 1023 };
enum { BEGIN_NODE = 1, END_NODE = 2, PROPERTY = 3, END = 9 };
enum { CONTROLLER = 1, CLOCK = 2, CPU_CONTROLLER = 3 }; /* phandles */
#ifdef BREAK_RESERVED /* a mistake for bootproof to find: nobody keeps off the firmware's RAM */
enum { TELLS_OF_FIRMWARE = 0 };
#else
enum { TELLS_OF_FIRMWARE = 1 };
#endif

static uint8_t *ram, tree[TREE_MAX], strings[TREE_MAX];
static uint32_t tree_size, strings_size;

static uint64_t get(const uint8_t *at, int size)
{
    uint64_t value = 0;
    memcpy(&value, at, size);
    return value;
}

/* --- a device tree, as it is written from its beginning to its end --- */

static void bytes(const void *data, uint32_t size)
{
    if (size > TREE_MAX - tree_size - 4)
        errx(2, "the device tree has no room for %u bytes more", size);
    memcpy(tree + tree_size, data, size);
    tree_size = (tree_size + size + 3) & ~3u;
}

static void cell(uint32_t value)
{
    value = __builtin_bswap32(value);
    bytes(&value, 4);
}

static void begin(const char *name)
{
    cell(BEGIN_NODE);
    bytes(name, strlen(name) + 1);
}

static void end(void) { cell(END_NODE); }

static void property(const char *name, const void *value, uint32_t size)
{
    cell(PROPERTY);
    cell(size);
    cell(strings_size); /* each name again: nothing asks for more */
    strcpy((char *)strings + strings_size, name);
    strings_size += strlen(name) + 1;
    bytes(value, size);
}

static void text(const char *name, const char *value) { property(name, value, strlen(value) + 1); }

static void cells(const char *name, int count, const uint32_t *values)
{
    uint32_t swapped[16];
    for (int i = 0; i < count; i++)
        swapped[i] = __builtin_bswap32(values[i]);
    property(name, swapped, 4 * count);
}
#define CELLS(name, ...) \
    cells(name, sizeof((uint32_t[]){__VA_ARGS__}) / 4, (const uint32_t[]){__VA_ARGS__})

static void sizes(uint32_t address, uint32_t size)
{
    CELLS("#address-cells", address);
    CELLS("#size-cells", size);
}

static void arm64_devices(void)
{
    begin("cpus"), sizes(1, 0);
    begin("cpu@0"), text("device_type", "cpu"), text("compatible", "arm,cortex-a57");
    CELLS("reg", 0), end(), end();
    begin("psci"), text("compatible", "arm,psci-0.2"), text("method", "hvc"), end();
    begin("timer"), text("compatible", "arm,armv8-timer");
    CELLS("interrupts", 1, 13, 0xf08, 1, 14, 0xf08, 1, 11, 0xf08, 1, 10, 0xf08), end();
    begin("interrupt-controller@8000000"), text("compatible", "arm,cortex-a15-gic");
    CELLS("reg", 0, 0x8000000, 0, 0x10000, 0, 0x8010000, 0, 0x10000);
    property("interrupt-controller", "", 0), CELLS("#interrupt-cells", 3);
    CELLS("phandle", CONTROLLER), end();
    begin("clock"), text("compatible", "fixed-clock"), CELLS("#clock-cells", 0);
    CELLS("clock-frequency", 24000000), CELLS("phandle", CLOCK), end();
    begin("serial@9000000"), property("compatible", "arm,pl011\0arm,primecell", 24);
    CELLS("reg", 0, 0x9000000, 0, 0x1000), CELLS("interrupts", 0, 1, 4);
    property("clock-names", "uartclk\0apb_pclk", 17), CELLS("clocks", CLOCK, CLOCK), end();
}

static void riscv64_devices(void)
{
    begin("cpus"), sizes(1, 0), CELLS("timebase-frequency", 10000000);
    begin("cpu@0"), text("device_type", "cpu"), text("compatible", "riscv");
    text("riscv,isa", "rv64imafdc"), text("mmu-type", "riscv,sv48"), CELLS("reg", 0);
    begin("interrupt-controller"), text("compatible", "riscv,cpu-intc");
    property("interrupt-controller", "", 0), CELLS("#interrupt-cells", 1);
    CELLS("phandle", CPU_CONTROLLER), end(), end(), end();
    begin("plic@c000000"), text("compatible", "riscv,plic0");
    CELLS("reg", 0, 0xc000000, 0, 0x600000), CELLS("riscv,ndev", 95);
    CELLS("interrupts-extended", CPU_CONTROLLER, 11, CPU_CONTROLLER, 9);
    property("interrupt-controller", "", 0), CELLS("#interrupt-cells", 1);
    CELLS("#address-cells", 0), CELLS("phandle", CONTROLLER), end();
    begin("serial@10000000"), text("compatible", "ns16550a"), CELLS("clock-frequency", 3686400);
    CELLS("reg", 0, 0x10000000, 0, 0x100), CELLS("interrupts", 10);
    CELLS("interrupt-parent", CONTROLLER), end(); /* not of all: that of a CPU's has no other */
    if (!TELLS_OF_FIRMWARE)
        return;
    begin("reserved-memory"), sizes(2, 2), property("ranges", "", 0);
    begin("firmware@80000000"), CELLS("reg", 0, 0x80000000, 0, BASE);
    property("no-map", "", 0), end(), end();
}

static void write_tree(int riscv, uint64_t ram_base, const char *cmdline, uint64_t initrd,
                       uint64_t initrd_end)
{
    begin(""), sizes(2, 2), text("compatible", "linux,dummy-virt");
    if (!riscv)
        CELLS("interrupt-parent", CONTROLLER);
    begin("memory"), text("device_type", "memory"), CELLS("reg", 0, ram_base, 0, RAM_SIZE), end();
    begin("chosen"), text("bootargs", cmdline);
    text("stdout-path", riscv ? "/serial@10000000" : "/serial@9000000");
    CELLS("linux,initrd-start", 0, initrd), CELLS("linux,initrd-end", 0, initrd_end), end();
    riscv ? riscv64_devices() : arm64_devices();
    end(), cell(END);
}

/* Header, no reservation, structure, strings: section 5.2. Gives the size of all of it. */
static uint32_t flatten(uint8_t *to)
{
    const uint32_t structure = 40 + 16, names = structure + tree_size;
    const uint32_t total = names + strings_size;
    const uint32_t header[] = {0xd00dfeed, total, structure, names,        40,
                               17,         16,    0,         strings_size, tree_size};
    for (int i = 0; i < 10; i++) {
        uint32_t word = __builtin_bswap32(header[i]);
        memcpy(to + 4 * i, &word, 4);
    }
    memcpy(to + structure, tree, tree_size);
    memcpy(to + names, strings, strings_size);
    return total;
}

/* --- files --- */

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

static void write_description(FILE *json, int riscv, uint64_t ram_base, uint64_t kernel,
                              uint64_t kernel_size, uint64_t dtb)
{
    const char *arch = riscv ? "riscv64" : "aarch64", *protocol = riscv ? "riscv64" : "arm64";
    const int pointer = riscv ? 11 : 0, registers = riscv ? 32 : 31; /* a1, x0: the device tree */
    fprintf(json, "{\n  \"version\": 1, \"arch\": \"%s\", \"protocol\": \"%s\",\n", arch, protocol);
    fprintf(json, "  \"banks\": [{\"address\": \"%#jx\", \"size\": %d, \"offset\": 0}],\n",
            (uintmax_t)ram_base, RAM_SIZE);
    fprintf(json, "  \"cpus\": [{\"pc\": \"%#jx\", \"x\": [", (uintmax_t)kernel);
    for (int i = 0; i < registers; i++)
        fprintf(json, "%s\"%#jx\"", i ? ", " : "", i == pointer ? (uintmax_t)dtb : 0);
    fprintf(json, "]}],\n  \"regions\": [{\"name\": \"kernel\", \"address\": \"%#jx\",",
            (uintmax_t)kernel);
    fprintf(json, " \"size\": \"%#jx\"}],\n", (uintmax_t)kernel_size);
    fprintf(json, "  \"provenance\": {\"written by\": \"write_boot_image_dt.c\"}\n}\n");
}

int main(int argc, char **argv)
{
    size_t ram_size, size, initrd_size;
    char path[4096];
    if (argc != 5 || strlen(argv[3]) > CMDLINE_MAX || strlen(argv[4]) > 4000)
        errx(2, "usage: write_boot_image_dt IMAGE INITRD CMDLINE DIR");
    const uint8_t *file = map(argv[1], &size, 0), *initrd_file = map(argv[2], &initrd_size, 0);
    const uint32_t magic = size < HEADER ? 0 : get(file + 56, 4);
    if (magic != ARM64_MAGIC && magic != RISCV64_MAGIC)
        errx(2, "%s: no Image of arm64 or riscv64", argv[1]);
    const int riscv = magic == RISCV64_MAGIC;
    const uint64_t ram_base = riscv ? 0x80000000 : 0x40000000;
    /* Behind the firmware on riscv64, and behind QEMU's own device tree on arm64. */
    const uint64_t text_offset = get(file + 8, 8), base = riscv && text_offset >= BASE ? 0 : BASE;
    const uint64_t image_size = get(file + 16, 8) < size ? size : get(file + 16, 8);
    /* From the end of RAM down, below the last 4 MiB: initrd, device tree. */
    const uint64_t top = RAM_SIZE - (4 << 20);
    const uint64_t initrd = (top - initrd_size) & ~0xfffULL, dtb = initrd - 2 * TREE_MAX - 0x1000;
    const uint64_t kernel = base + text_offset;
    if (initrd_size > top / 2 || text_offset > BASE || image_size > dtb - kernel)
        errx(2, "%s and %s do not fit into %d MiB", argv[1], argv[2], RAM_SIZE >> 20);

    sprintf(path, "%s/ram.img", argv[4]);
    ram = map(path, &ram_size, 1);
    memcpy(ram + kernel, file, size);
    memcpy(ram + initrd, initrd_file, initrd_size);
    write_tree(riscv, ram_base, argv[3], ram_base + initrd, ram_base + initrd + initrd_size);
    flatten(ram + dtb);

    if (munmap(ram, ram_size))
        err(2, "%s", path);
    FILE *json = chdir(argv[4]) ? NULL : fopen("boot.json.part", "w");
    if (json)
        write_description(json, riscv, ram_base, ram_base + kernel, image_size, ram_base + dtb);
    if (!json || fclose(json) || rename("boot.json.part", "boot.json")) /* last, and whole */
        err(2, "%s/boot.json", argv[4]);
    return 0;
}
