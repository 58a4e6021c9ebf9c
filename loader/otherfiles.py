"""Files that are given in a kernel's place: what they are, and how to get at the kernel in them.

Owns recognising what no loader takes by its first bytes, by its being text, and by the texts of a
few well-known programs. Must not know how anything is loaded or unpacked.

Sources: U-Boot's include/image.h and doc/uImage.FIT; Android's bootimg.h; the Devicetree
Specification, "Flattened Devicetree (DTB) Format"; cpio's newc; ECMA-119 (ISO 9660); tar's ustar
(POSIX.1, pax); UEFI, "GPT Header"; ext4's super block (Documentation/filesystems/ext4); a zImage of
arm's (arch/arm/boot/compressed/head.S) and s390's (arch/s390/boot/head.S); the Multiboot (0.6.96)
and Multiboot2 (2.0) specifications.
"""

# No deferred annotations here: `Declared` reads the encodings from them.
import re
from typing import Final

from bootproof.dataclass import dataclass
from bootproof.loader.arch.table import ARCHITECTURES
from bootproof.loader.banner import banner_release
from bootproof.loader.declared import U32, Declared
from bootproof.loader.ikconfig import find
from bootproof.loader.pecoff import PeFile
from bootproof.printable import one_line


@dataclass(frozen=True, slots=True)
class OtherFile:
    """What a file is, in words that go on from "it is", and what its owner can do."""

    what: str
    advice: str | None = None


_UIMAGE: Final = 0x27051956
_UIMAGE_SIZE: Final = 64
_UIMAGE_TYPES: Final = {
    2: "kernel",
    3: "ramdisk",
    4: "several files",
    5: "firmware",
    6: "script",
    7: "file system",
    8: "device tree",
    14: "kernel without load address",
}
_UIMAGE_KERNELS: Final = (2, 14)
_DEVICE_TREE: Final = 0xD00DFEED
_FIT_NODE: Final = b"\0\0\0\1images\0"  # FDT_BEGIN_NODE and its name
_FIT_SEARCHED: Final = 4 << 20
_ANDROID_PAGE: Final = 4096  # of header version 3 and later
_ANDROID_LATEST: Final = 8  # what is more than this was the size of a device tree
_PARTITIONS_AT: Final = 446
_SIGNATURE_AT: Final = 510
_IN_IT: Final = "take the kernel out of it: "
_OUT_OF_IT: Final = "mount or unpack it, and give the kernel in it"
_MADE_OF: Final = "give what it was made of, the vmlinux, or a bzImage or Image"
_OUR_CPUS: Final = f"bootproof boots {', '.join(ARCHITECTURES)}"
_READ_AS_TEXT: Final = 512
_SHOWN_OF_TEXT: Final = 60
_UNDECODED: Final = "\ufffd"
_NO_TEXT: Final = re.compile(r"[^\t\n\f\r\x1b -~\xa0-\U0010ffff]|" + _UNDECODED)
_LONG_TEXT: Final = 32  # characters; of fewer without a line's end nothing is claimed
_HTML: Final = re.compile(r"\s*<(!doctype|html)", re.IGNORECASE)
_WORD: Final = re.compile(r"\w")

_MAGICS: Final = (
    (0, b"070701", OtherFile("an initramfs (cpio archive)", "give it with --initrd")),
    (0, b"070702", OtherFile("an initramfs (cpio archive)", "give it with --initrd")),
    (0, b"!<arch>\ndebian-binary", OtherFile("a Debian package")),
    (0, b"!<arch>\n", OtherFile("an archive of object files (ar)", "give the kernel linked of it")),
    (0, b"\xed\xab\xee\xdb", OtherFile("an RPM package")),
    (0, b"VNDRBOOT", OtherFile("an Android vendor boot image, which has no kernel in it")),
    (0, b"QFI\xfb", OtherFile("a disk image (qcow2)", _OUT_OF_IT)),
    (0, b"hsqs", OtherFile("a file system (squashfs)", _OUT_OF_IT)),
    (0x8001, b"CD001", OtherFile("a CD image (ISO 9660)", _OUT_OF_IT)),
    (0x101, b"ustar", OtherFile("an archive (tar)", _OUT_OF_IT)),
    (0, b"PK\3\4", OtherFile("an archive (zip)", _OUT_OF_IT)),
    (0, b"7z\xbc\xaf\x27\x1c", OtherFile("an archive (7z)", _OUT_OF_IT)),
    (0x200, b"EFI PART", OtherFile("a disk image (GPT)", _OUT_OF_IT)),
    (0x36, b"FAT", OtherFile("a file system (FAT)", _OUT_OF_IT)),
    (0x52, b"FAT32", OtherFile("a file system (FAT)", _OUT_OF_IT)),
    (0x438, b"\x53\xef\1\0", OtherFile("a file system (ext4)", _OUT_OF_IT)),
    (0x24, b"\x18\x28\x6f\1", OtherFile("a zImage for 32-bit CPUs (arm)", _OUR_CPUS)),
    (0x10008, b"S390EP", OtherFile("a kernel for s390x", _OUR_CPUS)),
    (
        0,
        b"version https://git-lfs",
        OtherFile("a pointer of Git LFS", "git lfs pull gets the file"),
    ),
)


@dataclass(frozen=True, slots=True)
class AndroidHeader(Declared):
    """The beginning of boot_img_hdr, behind its eight bytes of magic."""

    kernel_size: U32
    kernel_addr: U32
    ramdisk_size: U32
    ramdisk_addr: U32
    second_size: U32
    second_addr: U32
    tags_addr: U32
    page_size: U32
    header_version: U32


def recognise(data: memoryview) -> OtherFile | None:
    """What a file of none of the kernel's formats is."""
    if known := by_magic(data):
        return known
    if _has_partitions(data):
        return OtherFile("a disk image (MBR)", _OUT_OF_IT)
    return _text(data) or _program(data)


def by_magic(data: memoryview) -> OtherFile | None:
    """What a file is that says so in its first bytes, and is no program by itself."""
    if bytes(data[:8]) == b"ANDROID!" and len(data) >= 8 + AndroidHeader.SIZE:
        return _android(AndroidHeader.from_bytes(data, 8))
    word = int.from_bytes(data[:4], "big")
    if word == _UIMAGE and len(data) >= _UIMAGE_SIZE:
        return _uimage(bytes(data[:_UIMAGE_SIZE]))
    if word == _DEVICE_TREE:
        return _device_tree(data)
    for offset, magic, known in _MAGICS:
        if bytes(data[offset : offset + len(magic)]) == magic:
            return known
    return None


def _text(data: memoryview) -> OtherFile | None:
    """A file of text, with its first line that has a word in it."""
    text = bytes(data[:_READ_AS_TEXT]).decode("utf-8-sig", "replace")
    text = text.rstrip(_UNDECODED)  # the last character may be cut
    if _NO_TEXT.search(text) or ("\n" not in text and len(text) < _LONG_TEXT):
        return None
    if _HTML.match(text):
        return OtherFile("a web page (HTML)", "get the file itself: what was downloaded is none")
    line = next((line.strip() for line in text.splitlines() if _WORD.search(line)), "")
    cut = "…" if len(line) > _SHOWN_OF_TEXT else ""
    return OtherFile(f"a text file: '{one_line(line[:_SHOWN_OF_TEXT])}{cut}'")


def _program(data: memoryview) -> OtherFile | None:
    """Code without a header of a kernel's: an EFI application, or not even that."""
    named = program_named_in(data)
    if PeFile.parse(data):
        what = "an EFI application without a kernel inside"
        return OtherFile(f"{named}, {what}" if named else what)
    release = banner_release(data)
    if release:  # the names of others are in a Linux as well
        return OtherFile(f"Linux {release}, as a binary without any header", _MADE_OF)
    return OtherFile(f"{named}, as a binary without any header") if named else None


def _has_partitions(data: memoryview) -> bool:
    """Whether the first sector has a partition table with something in it."""
    if bytes(data[_SIGNATURE_AT : _SIGNATURE_AT + 2]) != b"\x55\xaa":
        return False
    table = bytes(data[_PARTITIONS_AT:_SIGNATURE_AT])
    entries = [table[at : at + 16] for at in range(0, len(table), 16)]
    used = [entry for entry in entries if any(entry)]
    return bool(used) and all(e[0] in (0, 0x80) and e[4] and any(e[12:]) for e in used)


def _uimage(header: bytes) -> OtherFile:
    kind = header[30]
    name = header[32:64].split(b"\0")[0].decode("ascii", "replace")
    what = _UIMAGE_TYPES.get(kind, f"type {kind}")
    shown = f"a U-Boot legacy image (uImage): {what} '{name}'"
    advice = f"{_IN_IT}tail -c +{_UIMAGE_SIZE + 1} FILE > kernel"
    return OtherFile(shown, advice if kind in _UIMAGE_KERNELS else None)


def _device_tree(data: memoryview) -> OtherFile:
    if bytes(data[:_FIT_SEARCHED]).find(_FIT_NODE) < 0:
        return OtherFile("a device tree")
    advice = f"{_IN_IT}dumpimage -T flat_dt -p 0 -o kernel FILE"
    return OtherFile("a flattened image tree (FIT) of U-Boot's", advice)


def _android(header: AndroidHeader) -> OtherFile:
    version = header.header_version if header.header_version <= _ANDROID_LATEST else 0
    page = _ANDROID_PAGE if version > 2 else header.page_size
    advice = f"{_IN_IT}tail -c +{page + 1} FILE | head -c {header.kernel_size} > kernel"
    return OtherFile(f"an Android boot image, header version {version}", advice)


# --- programs that are started as kernels are ----------------------------------------------------

_PROGRAMS: Final = (
    (b"User Mode Linux v", "User Mode Linux"),
    (b"U-Boot 20", "U-Boot"),
    (b"Xen version ", "Xen"),
    (b"Welcome to GRUB!", "GRUB"),
    (b"GNU Mach ", "GNU Mach"),
    (b"Memtest86+", "Memtest86+"),
    (b"MEMDISK ", "MEMDISK of Syslinux"),
    (b"iPXE initialising devices", "iPXE"),
    (b"SeaBIOS (version", "SeaBIOS"),
    (b"\n\nDecompressing Linux... ", "a bzImage's decompressor (boot/compressed/vmlinux)"),
)
_SEARCHED: Final = 64 << 20


def program_named_in(data: memoryview) -> str | None:
    """A program that is known by a text in it, of the first 64 MiB; None where there is none."""
    first = data[:_SEARCHED]
    named = (name for text, name in _PROGRAMS if next(find(first, text), None) is not None)
    return next(named, None)


_MULTIBOOT: Final = 0x1BADB002
_MULTIBOOT2: Final = 0xE85250D6
_MULTIBOOT_WITHIN: Final = 8192
_MULTIBOOT2_WITHIN: Final = 32768


def is_multiboot(data: memoryview) -> bool:
    """Whether a file has the header of a Multiboot kernel, version 1 or 2."""
    first = bytes(data[:_MULTIBOOT2_WITHIN])
    return _has_header(first[:_MULTIBOOT_WITHIN], _MULTIBOOT, 3) or _has_header(
        first, _MULTIBOOT2, 4
    )


def _has_header(data: bytes, magic: int, words: int) -> bool:
    """Whether there is the magic with `words` 32-bit words in all that add up to zero."""
    wanted = magic.to_bytes(4, "little")
    at = data.find(wanted)
    while at >= 0:
        header = data[at : at + 4 * words]
        values = (int.from_bytes(header[n : n + 4], "little") for n in range(0, len(header), 4))
        if not at % 4 and len(header) == 4 * words and not sum(values) % (1 << 32):
            return True
        at = data.find(wanted, at + 1)
    return False
