"""What is fuzzed: one target per parser, with a seed corpus that the test builders make.

Owns turning bytes into a call and judging its outcome: an answer or a LoaderError, whose message is
one line, and guest memory as it was after a refusal. Anything else escapes. Must not know which
engine makes the bytes. Where a target takes options, its first byte chooses them.
"""

from __future__ import annotations

import functools
import json
import os
import re
import signal
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from bootproof.harness import typedjson
from bootproof.harness.cases.scenarios import parse_scenarios
from bootproof.harness.cases.schema import case_from_data, case_to_data
from bootproof.harness.compare.differences import ComparedBoot, boot_differences
from bootproof.harness.compare.memory_at_entry import MemoryAtEntry
from bootproof.harness.compare.reasons import code_for, facts
from bootproof.harness.errors import UserError
from bootproof.harness.expected import ExpectedHandover
from bootproof.harness.guest.lockup import LockupReports
from bootproof.harness.guest.stages import marks
from bootproof.harness.judge import judge
from bootproof.harness.observation import End, Observation
from bootproof.harness.results import results
from bootproof.harness.verdict import Verdict
from bootproof.kernels import sources
from bootproof.kernels.catalog import load_catalog
from bootproof.loader import (
    BzImage,
    Cmdline,
    Elf,
    GuestMemory,
    LoaderError,
    Pe,
    conformance,
    kallsyms,
    kmodule,
    load_cmdline,
    load_dtb,
    symtab,
)
from bootproof.loader.address import MIB, Range
from bootproof.loader.arch import Registers, to_json
from bootproof.loader.arch.aarch64 import Arm64Registers
from bootproof.loader.arch.table import IMPORTING
from bootproof.loader.arch.x86_64 import ATTR_CODE64, DescriptorTable, Segment, X86Registers
from bootproof.loader.boot_parameters import reader
from bootproof.loader.bootimage import BootImage, BootImageError
from bootproof.loader.bootimage import parse as parse_boot_image
from bootproof.loader.corefile import read_core
from bootproof.loader.device_tree import DeviceTree, Node, for_kernel
from bootproof.loader.identify import identify
from bootproof.loader.image import open_image
from bootproof.loader.inspect import inspect
from bootproof.loader.result import KernelLoaderResult
from bootproof.loader.unpack import uki_parts, unpack, unpack_fully
from bootproof.scenarios.museum import scene as museum
from tests.builders import images, packings
from tests.builders import kallsyms as tables
from tests.builders.guests import Claim, machine

BANKS: Final = ((0, 0x8000), (0x8000, 0x8000), (0x20_0000, 0x8000), (1 << 40, 0x1000))
OFFSETS: Final = (None, 0, 0x1000, 0x20_0000, 1 << 40, (1 << 64) - 0x20_0000, (1 << 64) - 1)
UNPACK_LIMIT: Final = 4 * MIB
PLAIN_ID: Final = re.compile(r"[A-Za-z0-9._+-]+", re.ASCII)
MOST_BYTES: Final = 16 << 10  # of an input; the builders' images are about 4 KiB


class EscapedError(AssertionError):
    """A parser's answer that breaks its promise, though nothing was raised."""


@dataclass(frozen=True)
class Target:
    """A parser: `call` raises what escapes; `seeds` makes the inputs to begin with."""

    name: str
    call: Callable[[bytes], object]
    seeds: Callable[[], Sequence[bytes]]

    def run(self, data: bytes) -> str:
        """Calls the parser; the code of its refusal, or "" for an answer. Raises what escapes."""
        try:
            self.call(data)
        except LoaderError as error:
            check(str(error).isprintable(), f"not one line: {str(error)!r}")
            return error.code
        return ""


def check(holds: bool, what: str) -> None:
    if not holds:
        raise EscapedError(what)


# --- modules -------------------------------------------------------------------------------------


def _module(data: bytes) -> None:
    info = kmodule.read(data, "it")
    check(all(info.depends), "it needs a module without a name")


def _modules() -> list[bytes]:
    magic = "6.1.0-test SMP preempt mod_unload "
    return [images.module("loop", magic), images.module("b", magic, depends="a-b,c", machine=183)]


# --- symbols -------------------------------------------------------------------------------------


class NamelessError(LoaderError):
    """A kernel without names is none to who reads them; for the engine it is a refusal."""

    code = "Symbols::None"


def _kallsyms(data: bytes) -> None:
    option, content = (data[:1] or b"\0")[0], memoryview(data)[1:]
    found = kallsyms.functions(content, option << 16, ("_stext", 0x1_0000))
    if not found:
        raise NamelessError("no kallsyms")
    check(all(len(name) <= len(data) for _, _, name in found), "a name longer than its file")


def _tables() -> list[bytes]:
    symbols = tables.many(258)
    return [
        b"\x80" + tables.tables(symbols, layout, 0x80_0000) for layout in tables.LAYOUTS.values()
    ]


def _symtab(data: bytes) -> None:
    content = memoryview(data)
    size = sum(len(part) for _, part in symtab.segments(content))
    check(size <= len(data), "segments larger than their file")
    found = symtab.functions(content)
    if not found:
        raise NamelessError("no symbol table")
    check(all(0 <= place < 1 << 64 for _, place, _ in found), "a function at no address")


def _symtabs() -> list[bytes]:
    names = {0: "startup_64", 0x40: "start_kernel", 0x80: ""}
    return [images.with_symbols(names, base=base) for base in (0, 0xFFFFFFFF81000000)]


# --- loaders -------------------------------------------------------------------------------------

Load = Callable[[GuestMemory, bytes, int | None], KernelLoaderResult]


def _loads(load: Load, data: bytes) -> None:
    option, content = data[:1] or b"\0", data[1:]
    with GuestMemory(BANKS) as memory:
        try:
            result = load(memory, content, OFFSETS[option[0] % len(OFFSETS)])
        except LoaderError:
            check(not list(memory.data_extents()), "a refused load wrote into memory")
            raise
        for finding in result.findings:
            check(finding.sentence.isprintable(), f"not one line: {finding.sentence!r}")
        for extent in memory.data_extents():
            check(extent.overlaps(result.footprint), f"{extent} is not in {result.footprint}")


def _elf(memory: GuestMemory, content: bytes, offset: int | None) -> KernelLoaderResult:
    return Elf().load(memory, content, kernel_offset=offset)


def _bzimage(memory: GuestMemory, content: bytes, offset: int | None) -> KernelLoaderResult:
    return BzImage().load(memory, content, kernel_offset=offset)


def _pe(memory: GuestMemory, content: bytes, offset: int | None) -> KernelLoaderResult:
    return Pe().load(memory, content, kernel_offset=offset)


def _elves() -> list[bytes]:
    load, notes = images.load(0x1000, bytes(range(64)), memsz=0x100), images.notes
    entry, reloc = images.pvh_entry(0x1000), images.pvh_reloc(0x1000, 0, 1 << 30)
    other = images.BUILD_ID
    return [
        images.elf(load, entry=0x1000),
        images.elf(load, images.bss(0x2000, 0x1000), notes(other, entry, reloc), entry=0x1000),
        images.elf(load, images.load(0x1020, b"over it"), notes(other), notes(entry), entry=0x1000),
        images.elf(images.load(0x7FF0, bytes(64)), notes(bytes(2000)), entry=0x20_0000),
        images.elf(load, machine=3, phnum=3),
    ]


def _bzimages() -> list[bytes]:
    return [
        images.bzimage(bytes(64), sectors=2, code32_start=0x1000, init_size=0x1000),
        images.bzimage(bytes(64), sectors=5, setup_sects=0, version=0x200, code32_start=0x1000),
        images.bzimage(bytes(64), sectors=2, relocatable_kernel=0, kernel_alignment=0),
    ]


def _images() -> list[bytes]:
    return [
        images.image(size=0x200),
        images.image(images.RISCV64, text_offset=0x20_0000, size=0x200),
        images.image(image_size=0, size=0x80),
    ]


def _with_option(seeds: Callable[[], list[bytes]]) -> Callable[[], list[bytes]]:
    return lambda: [bytes([i % len(OFFSETS)]) + seed for i, seed in enumerate(seeds() * 2)]


# --- device trees, command lines, boot images ----------------------------------------------------


def _dtb(data: bytes) -> None:
    with GuestMemory(BANKS) as memory:
        load_dtb(memory, 0x1000, data)
    for_kernel(data, cmdline=b"console=ttyAMA0", initrd=Range(0x1000, 0x1000), label="fuzz")


def _dtbs() -> list[bytes]:
    root = Node(b"", 0, {b"compatible": b"linux,dummy-virt\0"})
    memory = Node(b"memory@40000000", 1, {b"reg": bytes(8)})
    told = Node(b"chosen", 1, {b"bootargs": b"x\0", b"kaslr-seed": b"x\0"})
    trees = [root, memory], [Node(b"", 0)], [Node(b"", 0), told]
    return [DeviceTree(nodes).to_bytes() for nodes in trees]


def _cmdline(data: bytes) -> None:
    """One byte of capacity, then a call per line; text with surrogates, as argv can have them."""
    capacity = (data[:1] or b"\0")[0] * 16
    lines = data[1:].decode("utf-8", "surrogateescape").split("\n")
    with GuestMemory(BANKS) as memory:
        cmdline = Cmdline.try_from(lines[0], capacity)
        for line in lines[1:]:
            _insert(cmdline, line)
        cmdline.as_bytes()
        load_cmdline(memory, 0x8000 - capacity // 2, cmdline)


def _insert(cmdline: Cmdline, line: str) -> None:
    kind, _, rest = line.partition(" ")
    key, _, value = rest.partition("=")
    if kind == "insert":
        cmdline.insert(key, value)
    elif kind == "multiple":
        cmdline.insert_multiple(key, value.split(","))
    elif kind == "init":
        cmdline.insert_init_args(rest)
    elif kind == "device":
        numbers = [len(part) << 9 for part in value.split(",")] + [0, 0]
        cmdline.add_virtio_mmio_device(numbers[0], numbers[1], len(key), len(rest) or None)
    else:
        cmdline.insert_str(line)


def _cmdlines() -> list[bytes]:
    return [
        b"\x20console=ttyS0 quiet -- single\ninsert root=/dev/vda\nmultiple k=a,b\ninit x",
        b'\x10a="b c"\ninsert key="with space"\ndevice dev=aaaa,bb',
        "\x08 \u2003é\u00a0 --\n".encode(),
    ]


def _boot_image(data: bytes) -> None:
    """As open_boot_image, but for the file."""
    try:
        parse_boot_image(data)
    except ValueError as error:
        raise BootImageError(str(error)) from error


def _boot_images() -> list[bytes]:
    code, data = Segment(0x10, attributes=ATTR_CODE64), Segment(0x18)
    x86 = X86Registers.with_segments(0x100_0000, code, data, DescriptorTable(0x1000, 31))
    return [
        _boot_json("x86_64", "linux64", x86, (0, 1 << 29)),
        _boot_json("aarch64", "arm64", Arm64Registers(pc=0x4020_0000), (1 << 30, 1 << 29)),
    ]


def _boot_json(arch: str, protocol: str, registers: Registers, bank: tuple[int, int]) -> bytes:
    image = {
        "format": "bootproof boot image",
        "version": 1,
        "arch": arch,
        "protocol": protocol,
        "entry": hex(registers.pc),
        "banks": [{"address": hex(bank[0]), "size": hex(bank[1]), "offset": "0x0"}],
        "cpus": [to_json(registers)],
        "regions": [{"name": "kernel", "address": hex(registers.pc), "size": "0x100000"}],
        "provenance": {"kernel": "vmlinux"},
    }
    return json.dumps(image).encode()


# What damaged bytes take the place of: a setting of the museum, and where in its RAM.
HANDED: Final = (
    (museum.Setting("linux64", cpus=2), Range(0x1000, 0x3000)),
    (museum.Setting("linux64", cpus=2), Range(0x9E000, 0x1000)),
    (museum.Setting("linux32", packed=True), Range(0x1000, 0x2000)),
    (museum.Setting("pvh", cpus=2), Range(0x1000, 0x1000)),
    (museum.Setting("arm64", banks=museum.BOARD), Range(1 << 30, 0x1000)),
    (museum.Setting("riscv64", banks=((2 << 30, 64 * MIB),)), Range((2 << 30) + 2 * MIB, 0x1000)),
)


@functools.cache
def _handed(number: int) -> tuple[BootImage, GuestMemory]:
    setting, _ = HANDED[number]
    memory = GuestMemory(setting.banks)
    return museum.set_up(setting, memory).image(), memory


class HandoverRefusedError(LoaderError):
    """A rule that does not hold."""


def _rules(data: bytes) -> None:
    """A hand-over of which a part is not as it was written; the first byte chooses which."""
    number = data[0] % len(HANDED) if data else 0
    (image, memory), (_, area) = _handed(number), HANDED[number]
    right = memory.read(area.start, area.size)
    memory.write(area.start, data[1 : 1 + area.size])
    try:
        found = conformance.findings(image, reader(memory))
    finally:
        memory.write(area.start, right)
    for finding in found:
        check(finding.sentence.isprintable(), f"not one line: {finding.sentence!r}")
        check(bool(finding.section), f"from no document: {finding.code}")
    if found:
        raise HandoverRefusedError(found[0].sentence)


def _handovers() -> list[bytes]:
    return [
        bytes([number]) + _handed(number)[1].read(area.start, area.size)
        for number, (_, area) in enumerate(HANDED)
    ]


class ScenarioRefusedError(LoaderError):
    """A scenario file is no loader's business; for the engine a refusal is a refusal."""

    code = "Scenarios::Refused"


def _core(data: bytes) -> None:
    """Another machine's core: where its RAM is, and what its CPUs' notes show."""
    with open_image(data, allow_empty=True) as source:
        core = read_core(source)
        for part in core.loads:
            check(part.offset + part.in_file <= source.size, "memory that the file has not got")
            check(part.in_file <= part.place.size, "more in the file than in memory")
    for importing in IMPORTING.values():
        for seen in importing.from_notes(core.notes):
            check(importing.counter in seen.values, "a CPU without a program counter")


def _cores() -> list[bytes]:
    words = struct.pack("<120Q", *range(120))
    by_qemu = [images.note(b"CORE\0", 1, words[:336]), images.note(b"QEMU\0", 0, words[:440])]
    plain = [images.note(b"CORE\0", 1, words[:392])]
    return [
        replace(images.ElfFile((images.notes(*found), images.load(0, b"RAM"))), type=4).build()
        for found in (by_qemu, plain)
    ]


def _scenarios(data: bytes) -> None:
    directory = Path("/nonexistent")
    try:
        found = parse_scenarios(directory / "my.toml", data.decode(), load_catalog())
    except UnicodeDecodeError as error:
        raise ScenarioRefusedError("not UTF-8") from error
    except UserError as error:
        raise ScenarioRefusedError(str(error)) from error
    for case in (claimed.case for claimed in found):
        check(PLAIN_ID.fullmatch(case.id) is not None, f"an id that is no plain name: {case.id!r}")
        path = case.kernel_path
        below = path is None or Path(path).is_relative_to(directory)
        check(below or bool(sources.name_of_url(str(path))), f"a kernel outside of it: {path}")
        check(case_from_data(case_to_data(case)) == case, f"not the same from data: {case}")


def _scenario_files() -> list[bytes]:
    claim = '[[claim]]\nname = "a"\nwhy = "w"\nformat = "elf"\nprotocol = "linux64"\n'
    head = '[defaults]\narch = "x86_64"\nkernel = "6.1-cloud-amd64"\n'
    changed = (
        '[[claim.except]]\nwhen = { offset = ["1M"] }\nexpect = { verdict = "silent" }\n'
        'reason = "r"\nunsafe = true\n'
    )
    files = [head + claim + 'offset = ["none", "1M", "ram+2M"]\n' + changed]
    files.append(head + claim.replace("elf", "file") + 'kernel = ["./vmlinux", "6.*", "!6.1-*"]\n')
    return [text.encode() for text in files]


# --- recognising and unpacking -------------------------------------------------------------------


def _unpacks(data: bytes) -> None:
    for take in (unpack, unpack_fully):
        result = take(data, limit=UNPACK_LIMIT)
        check(len(result.data) <= UNPACK_LIMIT, "more came out than the limit allows")


def _uki(data: bytes) -> None:
    parts = uki_parts(data)
    check(len(parts.linux) <= len(data), "a section larger than its file")
    unpack_fully(data, limit=UNPACK_LIMIT)


def _kernels() -> list[bytes]:
    return [packings.image(1500), packings.elf(1500)]


def _streams(pack: Callable[[bytes], bytes]) -> Callable[[], list[bytes]]:
    return lambda: [pack(kernel) for kernel in _kernels()]


def _payloads() -> Iterator[tuple[str, bytes]]:
    for name, (packing, pack) in packings.COMPRESSORS.items():
        yield name, packings.with_size(pack(_kernels()[1]), 1500, packing)


def _packed_bzimages() -> list[bytes]:
    return [packings.bzimage(payload, payload_offset=0x240) for _, payload in _payloads()]


def _zboots() -> list[bytes]:
    names = {"gzip": b"gzip", "xz": b"xz", "lzma": b"lzma", "lzo": b"lzo", "zstd": b"zstd22"}
    return [
        packings.zboot(payload, names[name], size_word=name != "gzip")
        for name, payload in _payloads()
        if name in names
    ]


def _ukis() -> list[bytes]:
    kernel = _kernels()[0]
    sections = [(".linux", kernel), (".cmdline", b"quiet"), (".uname", b"6.1"), (".initrd", b"x")]
    return [packings.uki(sections), packings.uki(sections[:1])]


def _everything() -> list[bytes]:
    packed = [pack(_kernels()[0]) for _, pack in packings.COMPRESSORS.values()]
    loadable = [*_elves(), *_bzimages(), *_images()]
    return [*loadable, *packed, *_packed_bzimages(), *_zboots(), *_ukis(), *_no_kernels()]


def _no_kernels() -> list[bytes]:
    """Programs, other boot loaders' images and 32-bit files, which are only told what they are."""
    interpreter = images.Segment(3, b"/lib64/ld-linux-x86-64.so.2\0")
    dynamic = images.Segment(2, bytes([14, *bytes(15)]) * 2)
    note = images.note(b"Xen\0", 18, bytes(4))
    return [
        images.elf(images.load(0, images.LINUX), interpreter, dynamic),
        images.elf32((1, 0x10_0000, b"Welcome to GRUB!"), (4, 0, note)),
        b"\x27\x05\x19\x56" + bytes(60) + images.LINUX,
        b"ANDROID!" + bytes(60),
        bytes.fromhex("d00dfeed") + bytes(60) + b"\0\0\0\1images\0",
        b"\x02\xb0\xad\x1b" * 8,
    ]


# --- guests --------------------------------------------------------------------------------------


def _guest(data: bytes) -> None:
    """All that reads what a guest says: its console, its log buffer, and two boots compared."""
    console, _, log = data.partition(b"\0\0")
    for expected in (_CLAIM.expected, ExpectedHandover(0x1000, b"login:")):
        for end in (End.GUEST_RESET, End.PARKED, End.BUDGET):
            judgement = judge(expected, Observation(console, end, log=log))
            check(judgement.reason.isprintable(), f"not one line: {judgement.reason!r}")
            for complaint in judgement.complaints:
                shown = str(complaint).replace("\t", " ")
                check(shown.isprintable(), f"not one line: {complaint}")
    json.dumps(typedjson.to_json((results.transcript(console), *marks(console))), allow_nan=False)
    LockupReports().lasting(console)
    ours, other = (
        ComparedBoot(Verdict.BOOTED, "", "linux64", None, MemoryAtEntry(), text)
        for text in (console, log)
    )
    told = facts(ours, other, [Range(*bank) for bank in BANKS], firmware=True)
    for difference in boot_differences(ours, other):
        code_for(difference, told)


_CLAIM: Final = Claim(machine("x86_64"), 2 * MIB)


def _consoles() -> list[bytes]:
    log = (
        b"[    0.000000] Linux version 6.1\n[    0.000000] BIOS-e820: [mem 0x0000000000000000"
        b"-0x000000000009fbff] usable\n[    0.1] Memory: 1K/2K available (3K kernel code, 4K x)\n"
        b"[    0.2] Kernel command line: quiet\n[    0.3] Run /init as init process\n"
    )
    ends = (
        b"[    1.0] Oops: 0000 [#1] SMP\n[    1.0] RIP: 0010:f+0x1/0x2\n",
        b"[    1.0] Kernel panic - not syncing: Attempted to kill init! exitcode=0x00000100\n",
        b"[    1.0] watchdog: BUG: soft lockup - CPU#0 stuck for 22s!\n[ 9.0] reboot: Power down\n",
        b"[    1.0] Initramfs unpacking failed: junk\n[    1.0] RAMDISK: [mem 0x1-0x2]\n",
        _CLAIM.text(),
    )
    return [log + end + b"\0\0" + log + other for end in ends for other in ends[:2]]


def _look(data: bytes) -> None:
    option, content = (data[:1] or b"\0")[0], data[1:]
    identify(content)
    inspect(content, offset=OFFSETS[option % len(OFFSETS)], limit=UNPACK_LIMIT)


TARGETS: Final = {
    target.name: target
    for target in (
        Target("elf", functools.partial(_loads, _elf), _with_option(_elves)),
        Target("bzimage", functools.partial(_loads, _bzimage), _with_option(_bzimages)),
        Target("image", functools.partial(_loads, _pe), _with_option(_images)),
        Target("core", _core, _cores),
        Target("module", _module, _modules),
        Target("kallsyms", _kallsyms, _tables),
        Target("symtab", _symtab, _symtabs),
        Target("dtb", _dtb, _dtbs),
        Target("cmdline", _cmdline, _cmdlines),
        Target("boot-json", _boot_image, _boot_images),
        Target("rules", _rules, _handovers),
        Target("scenarios", _scenarios, _scenario_files),
        Target("inspect", _look, _with_option(_everything)),
        Target("guest", _guest, _consoles),
        *(
            Target(f"unpack-{name}", _unpacks, _streams(pack))
            for name, (_, pack) in packings.COMPRESSORS.items()
            if name not in ("xz-x86", "zstd-22")
        ),
        Target("unpack-bzimage", _unpacks, _packed_bzimages),
        Target("unpack-zboot", _unpacks, _zboots),
        Target("unpack-uki", _uki, _ukis),
    )
}


def _planted(kind: str, data: bytes) -> None:
    if b"Q" not in data:
        return
    if kind == "escape":
        raise KeyError("planted")
    if kind == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    while True:
        pass


# Not parsers, but bugs: with these the tests see that a bug is found.
PLANTED: Final = {
    f"planted-{kind}": Target(
        f"planted-{kind}", functools.partial(_planted, kind), lambda: [b"P" * 8]
    )
    for kind in ("escape", "crash", "hang")
}
