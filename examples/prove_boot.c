/*
 * A guest that is no Linux and proves its boot (docs/other-guests.md): entered through PVH, it reads
 * its command line and memory map, and answers on the serial port with what only it can know.
 *
 *     cc -O2 -ffreestanding -fno-stack-protector -fno-pic -no-pie -static -nostdlib -mno-sse \
 *         -mno-red-zone -Wl,-Ttext-segment=0x100000 -Wl,-z,noexecstack -o guest prove_boot.c
 *     bootproof image guest --no-proof --cmdline bootproof.guest=another-for-each --out image
 *     bootproof run image
 *
 * Xen's docs/misc/pvh.pandoc and public/arch-x86/hvm/start_info.h; FIPS 180-4 (SHA-256).
 */
#include <stdint.h>

/* The note that names the entry; then from 32-bit mode into 64-bit mode, the first GiB mapped. */
__asm__(".section .note.pvh, \"a\", @note\n .long 4, 8, 18\n .asciz \"Xen\"\n .quad start\n"
        ".text\n.code32\nstart: mov $stack + 4096, %esp\n mov %ebx, %edi\n"
        " movl $tables + 0x1003, tables\n movl $tables + 0x2003, tables + 0x1000\n"
        " mov $0x83, %eax\n mov $tables + 0x2000, %ecx\n"
        "1: mov %eax, (%ecx)\n add $0x200000, %eax\n add $8, %ecx\n cmp $0x40000083, %eax\n jne 1b\n"
        " mov $tables, %eax\n mov %eax, %cr3\n mov $0x20, %eax\n mov %eax, %cr4\n"
        " mov $0xc0000080, %ecx\n rdmsr\n or $0x100, %eax\n wrmsr\n"
        " mov %cr0, %eax\n or $0x80000000, %eax\n mov %eax, %cr0\n lgdt gdt_pointer\n"
        " ljmp $8, $2f\n.code64\n2: mov $16, %eax\n mov %eax, %ds\n mov %eax, %es\n mov %eax, %ss\n"
        " call prove\n lidt no_idt\n int3\n" /* resets the machine */
        ".data\ngdt: .quad 0, 0x00af9b000000ffff, 0x00cf93000000ffff\n"
        "gdt_pointer: .word 23\n .quad gdt\nno_idt: .word 0\n .quad 0\n"
        ".bss\n.balign 4096\ntables: .skip 0x3000\nstack: .skip 4096\n.text\n");

struct start_info {
    uint32_t magic, version, flags, nr_modules;
    uint64_t modlist, cmdline, rsdp, memmap;
    uint32_t entries, reserved;
};
struct entry {
    uint64_t start, size;
    uint32_t type, reserved;
};
static const uint32_t K[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

static const uint32_t START[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                  0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};

static uint32_t ror(uint32_t x, int n) { return x >> n | x << (32 - n); }

/* A byte of what is hashed: the text, then 0x80, zeros, and the number of its bits. */
static uint32_t padded(const char *text, uint64_t size, uint64_t end, uint64_t at)
{
    if (at < size)
        return (uint8_t)text[at];
    return at == size ? 0x80 : at < end - 8 ? 0 : size * 8 >> 8 * (end - 1 - at) & 0xff;
}

static void sha256(const char *text, uint64_t size, uint32_t *state)
{
    uint64_t end = (size + 8) / 64 * 64 + 64;
    uint32_t w[64], s[8], a, b;
    for (int i = 0; i < 8; i++)
        state[i] = START[i];
    for (uint64_t at = 0; at < end;) {
        for (int i = 0; i < 16; i++)
            for (w[i] = 0, a = 4; a--;)
                w[i] = w[i] << 8 | padded(text, size, end, at++);
        for (int i = 16; i < 64; i++)
            w[i] = w[i - 16] + w[i - 7] +
                   (ror(w[i - 15], 7) ^ ror(w[i - 15], 18) ^ w[i - 15] >> 3) +
                   (ror(w[i - 2], 17) ^ ror(w[i - 2], 19) ^ w[i - 2] >> 10);
        for (int i = 0; i < 8; i++)
            s[i] = state[i];
        for (int i = 0; i < 64; i++) {
            a = s[7] + (ror(s[4], 6) ^ ror(s[4], 11) ^ ror(s[4], 25)) +
                ((s[4] & s[5]) ^ (~s[4] & s[6])) + K[i] + w[i];
            b = (ror(s[0], 2) ^ ror(s[0], 13) ^ ror(s[0], 22)) +
                ((s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]));
            for (int j = 7; j > 0; j--)
                s[j] = s[j - 1];
            s[4] += a, s[0] = a + b;
        }
        for (int i = 0; i < 8; i++)
            state[i] += s[i];
    }
}

static void put(char c)
{
    uint8_t ready;
    do
        __asm__ volatile("inb %1, %0" : "=a"(ready) : "Nd"((uint16_t)0x3fd));
    while (!(ready & 0x20));
    __asm__ volatile("outb %0, %1" : : "a"(c), "Nd"((uint16_t)0x3f8));
}

/* What the proof is the digest of: the nonce, and every line of evidence. */
static char said[16384], *end = said;

static void add(const char *text, int until)
{
    while (*text && *text != until)
        *end++ = *text++;
}

static void add_number(uint64_t value, unsigned base)
{
    if (value >= base)
        add_number(value / base, base);
    *end++ = "0123456789abcdef"[value % base];
}

/* Prints `title`, the first `words` of the digest of what was said from `from` on, and that. */
static void say(const char *title, int number, const char *from, int words)
{
    uint32_t digest[8];
    char *line = end;
    sha256(from, end - from, digest);
    add("bootproof: ", 0), add(title, 0);
    if (number)
        add_number(number, 10), add(" ", 0);
    for (int i = 0; i < 8 * words; i++)
        add_number(digest[i / 8] >> (28 - i % 8 * 4) & 0xf, 16);
    add(number ? " " : "\n", 0);
    for (const char *c = line; c < end; c++)
        put(*c);
    for (end = line; number && from < end; from++)
        put(*from);
}

void prove(const struct start_info *info)
{
    const char *word = (const char *)info->cmdline, *name = "bootproof.guest=";
    int lines = 0;
    for (int i = 0; name[i] && *word;) /* the nonce is behind the word's name */
        i = *word++ == name[i] ? i + 1 : 0;
    add(word, ' '), add("\n", 0);
    char *line = end;
    add("cmdline ", 0), add((const char *)info->cmdline, 0), add("\n", 0);
    say("", ++lines, line, 1);
    const struct entry *e = (const struct entry *)info->memmap;
    for (uint32_t left = info->entries; left--; e++)
        if (e->type == 1) {
            line = end, add("ram ", 0), add_number(e->start, 16), add("-", 0);
            add_number(e->start + e->size - 1, 16), add("\n", 0);
            say("", ++lines, line, 1);
        }
    say("proof ", 0, said, 8);
}
