"""Every rule of the hand-over, broken on a real QEMU and seen to be found.

Each mutation starts from a hand-over that is right and breaks exactly one thing: the boot image
(the CPU then really enters the kernel like that), what the stub does, or guest RAM. The table of
them all is docs/handover-mutations.md.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import pytest

from bootproof.harness.course import Outcome
from bootproof.harness.expected import CodeAt, Expected
from bootproof.harness.host import rundir
from bootproof.harness.qemu import placement
from bootproof.harness.qemu.devicetree import device_tree
from bootproof.harness.qemu.machine import Machine
from bootproof.harness.run import run
from bootproof.harness.start import Start
from bootproof.harness.terms import Budget
from bootproof.harness.verdict import Verdict
from bootproof.loader import bootimage, initramfs
from bootproof.loader.address import GIB, MIB, Range
from bootproof.loader.arch import Registers, Stub
from bootproof.loader.arch.aarch64 import Arm64Registers
from bootproof.loader.arch.riscv64 import RiscvRegisters
from bootproof.loader.arch.table import ARCHITECTURES
from bootproof.loader.arch.x86_64 import DescriptorTable, Segment, X86Registers
from bootproof.loader.bootimage import BootImage
from bootproof.loader.device_tree import INITRD, DeviceTree
from bootproof.loader.memory import GuestMemory
from bootproof.loader.protocols import BootRequest, arm64, linux32, linux64, pvh, riscv64
from bootproof.loader.protocols.table import PROTOCOLS as PROTOCOL_TABLE
from bootproof.loader.protocols.table import broken_rules
from bootproof.loader.result import KernelLoaderResult, PvhBootCapability, PvhState
from bootproof.loader.rules import Grade, Hardware
from tests import ROOT
from tests.docs import generated

TABLE: Final = ROOT / "docs" / "handover-mutations.md"

PROTOCOLS: Final = {module.NAME: module for module in (linux64, linux32, pvh, arm64, riscv64)}
MEMORY: Final = 64 * MIB
X86_ENTRY: Final = 16 * MIB
ENTRIES: Final = {"arm64": GIB + 16 * MIB, "riscv64": 2 * GIB + 16 * MIB}
OUTSIDE: Final = 0x7000_0000  # no RAM there on any machine
BUDGET: Final = Budget(parked_cpu_seconds=0.1, entry_cpu_seconds=1.0)

READ_ONLY: Final = 0xC091


@dataclass
class Scene:
    """A right hand-over, in RAM and registers, before it is broken."""

    memory: GuestMemory
    registers: Registers

    def change(self, **fields: Any) -> None:
        self.registers = replace(self.registers, **fields)

    @property
    def x86(self) -> X86Registers:
        assert isinstance(self.registers, X86Registers)
        return self.registers

    @property
    def arm(self) -> Arm64Registers:
        assert isinstance(self.registers, Arm64Registers)
        return self.registers

    def poke(self, address: int, data: bytes) -> None:
        self.memory.write(address, data)

    def zero_page(self, offset: int, data: bytes) -> None:
        self.poke(self.x86.rsi + offset, data)

    def start_info(self, offset: int, data: bytes) -> None:
        self.poke(self.x86.rbx + offset, data)

    @property
    def riscv(self) -> RiscvRegisters:
        assert isinstance(self.registers, RiscvRegisters)
        return self.registers

    @property
    def dtb(self) -> int:
        """Where the device tree is."""
        return self.arm.x[0] if isinstance(self.registers, Arm64Registers) else self.riscv.x[11]

    def x(self, **values: int) -> None:
        assert isinstance(self.registers, Arm64Registers | RiscvRegisters)
        self.registers = self.registers.with_x(**values)

    @contextmanager
    def tree(self) -> Iterator[DeviceTree]:
        """The device tree, to be changed: it is written back, and may be longer then."""
        size = int.from_bytes(self.memory.read(self.dtb + 4, 4), "big")
        tree = DeviceTree.parse(self.memory.read(self.dtb, size))
        yield tree
        self.poke(self.dtb, tree.to_bytes())


@dataclass(frozen=True)
class Mutation:
    """`breaks` changes the scene; `stub_does`, `stub_first` (code that
    comes first) and `ram` act behind the boot image's back."""

    protocol: str
    what: str
    finding: str
    breaks: Callable[[Scene], None] = lambda scene: None
    stub_does: Callable[[Registers], Registers] = lambda registers: registers
    stub_first: bytes = b""
    ram: Callable[[Path], None] | None = None
    verdict: Verdict = Verdict.PROTOCOL_VIOLATION

    @property
    def id(self) -> str:
        return f"{self.protocol}: {self.what}"


def other_state(name: str) -> Callable[[Scene], None]:
    """The registers of another protocol, at the same entry."""

    def change(scene: Scene) -> None:
        module = PROTOCOLS[name]
        with GuestMemory([(0, MEMORY)]) as scratch:
            found = module.configure(scratch, kernel_for(name), request_for(name)).registers
            for extent in scratch.data_extents():  # page tables, GDT
                scene.memory.write(extent.start, scratch.read(extent.start, extent.size))
        scene.registers = found

    return change


def segment(name: str, **fields: Any) -> Callable[[Scene], None]:
    def change(scene: Scene) -> None:
        # A selector of its own, so that no other segment register shares the descriptor.
        old: Segment = getattr(scene.registers, name)
        selector = {"cs": old.selector}.get(name, 0x28)
        scene.change(**{name: replace(old, selector=selector, **fields)})

    return change


def has(**fields: Any) -> Callable[[Registers], Registers]:
    """What a stub does that gets these registers wrong."""
    return lambda registers: replace(registers, **fields)


def x_is(number: int) -> Callable[[Registers], Registers]:
    """What a stub of riscv64 does that leaves 16 in a register."""

    def change(registers: Registers) -> Registers:
        assert isinstance(registers, RiscvRegisters)
        return registers.with_x(**{f"x{number}": 16})

    return change


def page_table_entry(gib: int, index: int, value: int) -> Callable[[Scene], None]:
    """Writes entry `index` of the page directory for `gib`."""

    def change(scene: Scene) -> None:
        address = scene.x86.cr3 + 0x2000 + 0x1000 * gib + 8 * index
        scene.poke(address, struct.pack("<Q", value))

    return change


# mrs x0, sctlr_el1; orr x0, x0, #1; msr sctlr_el1, x0; isb
MMU_ON: Final = struct.pack("<4I", 0xD5381000, 0xB2400000, 0xD5181000, 0xD5033FDF)


def dtb_at(register: str, entry: int, distance: int) -> Callable[[Scene], None]:
    """Has the device tree lie so far from the entry."""

    def change(scene: Scene) -> None:
        size = int.from_bytes(scene.memory.read(scene.dtb + 4, 4), "big")
        scene.poke(entry + distance, scene.memory.read(scene.dtb, size))
        scene.x(**{register: entry + distance})

    return change


def misplaced_image(protocol: str) -> Callable[[Scene], None]:
    def change(scene: Scene) -> None:
        scene.poke(ENTRIES[protocol] + 0x1000, image_kernel(protocol))
        scene.change(pc=ENTRIES[protocol] + 0x1000)

    return change


def chosen(properties: Mapping[bytes, bytes]) -> Callable[[Scene], None]:
    def change(scene: Scene) -> None:
        with scene.tree() as tree:
            tree.chosen.update(properties)

    return change


def without_node(name: bytes) -> Callable[[Scene], None]:
    """The node below the root of that name, and those below it, gone from the device tree."""

    def change(scene: Scene) -> None:
        with scene.tree() as tree:
            inside = False
            kept = []
            for node in tree.nodes:
                inside = (
                    node.name.startswith(name) if node.depth == 1 else inside and node.depth > 1
                )
                kept += [] if inside else [node]
            tree.nodes[:] = kept

    return change


def initrd_at(start: int) -> Callable[[Scene], None]:
    ends = (start.to_bytes(8, "big"), (start + 0x1000).to_bytes(8, "big"))
    return chosen(dict(zip(INITRD, ends, strict=True)))


def map_free_firmware(scene: Scene) -> None:
    with scene.tree() as tree:
        for node in tree.nodes:
            node.properties.pop(b"no-map", None)


def sv39(scene: Scene) -> None:
    """An identity map of 1 GiB pages, readable, writable and executable, and in use."""
    table = ENTRIES["riscv64"] + 8 * MIB
    scene.poke(table, b"".join((gib << 28 | 0xCF).to_bytes(8, "little") for gib in range(512)))
    scene.change(satp=8 << 60 | table >> 12)


def one_byte_of_the_kernel(files: Path) -> None:
    path = next(path for path in files.iterdir() if path.name.startswith("kernel"))
    data = bytearray(path.read_bytes())
    data[0x800] ^= 1
    path.write_bytes(data)


def one_byte_behind_the_kernel(files: Path) -> None:
    path = next(path for path in files.iterdir() if path.name.startswith("kernel"))
    path.write_bytes(path.read_bytes() + b"\0" * 0x5000 + b"\1")


WRONG: Final = Verdict.HANDOVER_WRONG

RISCV_ENTRY: Final = ENTRIES["riscv64"]
_RISCV64: Final = (
    ("a0 of another hart", "hart-in-dtb", lambda s: s.x(x10=1)),
    ("device tree without this hart", "hart-in-dtb", without_node(b"cpus")),
    ("a1 outside RAM", "dtb", lambda s: s.x(x11=OUTSIDE)),
    ("a1 off by eight", "dtb", lambda s: s.x(x11=s.dtb + 8)),
    ("no device tree", "dtb", lambda s: s.x(x11=0)),
    ("device tree misaligned", "dtb-alignment", dtb_at("x11", RISCV_ENTRY, 8 * MIB + 4)),
    ("device tree over 2 MiB", "dtb-size", lambda s: s.poke(s.dtb + 4, b"\0\x50\0\0")),
    ("device tree in the kernel", "overlap", dtb_at("x11", RISCV_ENTRY, MIB)),
    ("device tree cut short", "dtb", lambda s: s.poke(s.dtb + 4, b"\0\0\2\0")),
    ("satp not zero", "satp-zero", sv39),
    ("interrupts on", "interrupts", lambda s: s.change(sie=1)),
    ("image base not aligned", "image-base", misplaced_image("riscv64")),
    ("device tree without memory", "memory-node", without_node(b"memory@")),
    ("firmware not reserved", "firmware-reserved", without_node(b"reserved-memory")),
    ("firmware to be mapped", "firmware-reserved", map_free_firmware),
    ("command line too long", "cmdline-size", chosen({b"bootargs": b"x" * 1024 + b"\0"})),
    ("initrd outside RAM", "ramdisk", initrd_at(OUTSIDE)),
    ("initrd in the kernel", "overlap", initrd_at(RISCV_ENTRY + MIB)),
)
RISCV64: Final = tuple(Mutation("riscv64", *words) for words in _RISCV64)

MUTATIONS: Final = (
    Mutation("linux64", "RSI outside RAM", "zero-page", lambda s: s.change(rsi=OUTSIDE)),
    Mutation("linux64", "RSI points to zeros", "e820", lambda s: s.change(rsi=32 * MIB)),
    Mutation("linux64", "no E820 entries", "e820", lambda s: s.zero_page(0x1E8, b"\0")),
    Mutation("linux64", "paging off, 32-bit", "paging", other_state("linux32")),
    Mutation("linux64", "interrupts on", "interrupts", lambda s: s.change(rflags=0x202)),
    Mutation("linux64", "kernel not mapped", "identity-map", page_table_entry(0, 9, 0)),
    Mutation("linux64", "kernel mapped elsewhere", "identity-map", page_table_entry(0, 9, 0x83)),
    Mutation(
        "linux64",
        "command line outside RAM",
        "cmdline",
        lambda s: s.zero_page(0x228, struct.pack("<I", OUTSIDE)),
    ),
    Mutation(
        "linux64",
        "initrd outside RAM",
        "ramdisk",
        lambda s: s.zero_page(0x218, struct.pack("<I", OUTSIDE)),
    ),
    Mutation("linux64", "type_of_loader 0", "type-of-loader", lambda s: s.zero_page(0x210, b"\0")),
    Mutation("linux32", "EBP not zero", "rbp-zero", lambda s: s.change(rbp=1)),
    Mutation("linux32", "EDI not zero", "rdi-zero", lambda s: s.change(rdi=1)),
    Mutation("linux32", "EBX not zero", "rbx-zero", lambda s: s.change(rbx=1)),
    Mutation("linux32", "ESI outside RAM", "zero-page", lambda s: s.change(rsi=OUTSIDE)),
    Mutation("linux32", "paging on, 64-bit", "paging-off", other_state("linux64")),
    Mutation("linux32", "interrupts on", "interrupts", lambda s: s.change(rflags=0x202)),
    Mutation("linux32", "CS execute-only", "cs-type", segment("cs", attributes=0xC099)),
    Mutation("linux32", "DS read-only", "ds-type", segment("ds", attributes=READ_ONLY)),
    Mutation("linux32", "ES read-only", "es-type", segment("es", attributes=READ_ONLY)),
    Mutation("linux32", "ES of 1 MiB", "es-flat", segment("es", limit=0xFFFFF, attributes=0x4093)),
    Mutation("linux32", "DS with a base", "ds-flat", segment("ds", base=0x1000)),
    Mutation("linux32", "SS of 1 MiB", "ss-flat", segment("ss", limit=0xFFFFF, attributes=0x4093)),
    Mutation("pvh", "EBX off by one", "start-info-magic", lambda s: s.change(rbx=s.x86.rbx + 1)),
    Mutation("pvh", "EBX outside RAM", "start-info", lambda s: s.change(rbx=OUTSIDE)),
    Mutation("pvh", "CR4.PAE set", "cr4-zero", lambda s: s.change(cr4=0x20)),
    Mutation("pvh", "CR0.PG set", "paging-off", other_state("linux64")),
    Mutation("pvh", "interrupts on", "eflags-if", lambda s: s.change(rflags=0x202)),
    Mutation("pvh", "ES with a base", "es-flat", segment("es", base=0x1000)),
    Mutation("pvh", "no memory map entries", "memmap", lambda s: s.start_info(48, bytes(4))),
    Mutation(
        "pvh",
        "memory map outside RAM",
        "memmap",
        lambda s: s.start_info(40, struct.pack("<Q", OUTSIDE)),
    ),
    Mutation(
        "pvh",
        "module list outside RAM",
        "modlist",
        lambda s: s.start_info(16, struct.pack("<Q", OUTSIDE)),
    ),
    Mutation(
        "pvh",
        "command line outside RAM",
        "cmdline",
        lambda s: s.start_info(24, struct.pack("<Q", OUTSIDE)),
    ),
    Mutation("arm64", "x1 not zero", "x1-zero", lambda s: s.x(x1=1)),
    Mutation("arm64", "x2 not zero", "x2-zero", lambda s: s.x(x2=1)),
    Mutation("arm64", "x3 not zero", "x3-zero", lambda s: s.x(x3=1)),
    Mutation("arm64", "x0 outside RAM", "dtb", lambda s: s.x(x0=OUTSIDE >> 4)),
    Mutation("arm64", "x0 off by eight", "dtb", lambda s: s.x(x0=s.dtb + 8)),
    Mutation("arm64", "device tree misaligned", "dtb-alignment", dtb_at("x0", GIB, 8 * MIB + 4)),
    Mutation(
        "arm64",
        "device tree over 2 MiB",
        "dtb-size",
        lambda s: s.poke(s.dtb + 4, struct.pack(">I", 3 << 20)),
    ),
    Mutation("arm64", "IRQs not masked", "interrupts", lambda s: s.change(pstate=0x345)),
    Mutation("arm64", "image base not aligned", "image-base", misplaced_image("arm64")),
    Mutation(
        "arm64",
        "MMU on without page tables",
        "the CPU was at 0x200",
        stub_first=MMU_ON,
        verdict=Verdict.ENTRY_NOT_REACHED,
    ),
    *RISCV64,
    Mutation(
        "linux64",
        "stub leaves RAX at 1",
        "rax",
        stub_does=has(rax=1),
        verdict=WRONG,
    ),
    Mutation(
        "linux64",
        "stub leaves R15 at 1",
        "r15",
        stub_does=has(r15=1),
        verdict=WRONG,
    ),
    Mutation(
        "linux64",
        "stub skips lgdt",
        "gdtr",
        stub_does=has(gdtr=DescriptorTable()),
        verdict=WRONG,
    ),
    Mutation(
        "linux64",
        "stub sets RFLAGS.CF",
        "rflags",
        stub_does=has(rflags=3),
        verdict=WRONG,
    ),
    Mutation("linux64", "a byte of the kernel", "RAM", ram=one_byte_of_the_kernel, verdict=WRONG),
    Mutation("linux64", "a byte of free RAM", "RAM", ram=one_byte_behind_the_kernel, verdict=WRONG),
    Mutation(
        "arm64",
        "stub leaves x7 at 1",
        "x7",
        stub_does=lambda r: r.with_x(x7=1) if isinstance(r, Arm64Registers) else r,
        verdict=WRONG,
    ),
    Mutation("arm64", "stub leaves sp at 16", "sp", stub_does=has(sp=16), verdict=WRONG),
    *(
        Mutation("riscv64", f"stub leaves x{n} at 16", f"x{n}", stub_does=x_is(n), verdict=WRONG)
        for n in (2, 12, 31)
    ),
    Mutation("riscv64", "a byte of the kernel", "RAM", ram=one_byte_of_the_kernel, verdict=WRONG),
    Mutation("riscv64", "a byte of free RAM", "RAM", ram=one_byte_behind_the_kernel, verdict=WRONG),
    Mutation(
        "riscv64",
        "stub jumps elsewhere",
        "the CPU was at",
        stub_does=has(pc=RISCV_ENTRY + 0x100),
        verdict=Verdict.ENTRY_NOT_REACHED,
    ),
    Mutation("arm64", "a byte of the kernel", "RAM", ram=one_byte_of_the_kernel, verdict=WRONG),
    Mutation(
        "linux64",
        "stub jumps elsewhere",
        "the CPU was at",
        stub_does=has(rip=X86_ENTRY + 0x100),
        verdict=Verdict.ENTRY_NOT_REACHED,
    ),
    Mutation(
        "linux64",
        "CR3 points to zeros",
        "identity-map",
        lambda s: s.change(cr3=32 * MIB),
    ),
)


def machine_for(protocol: str) -> Machine:
    return Machine.with_defaults(PROTOCOL_TABLE[protocol].arch.name, memory=MEMORY)


def request_for(protocol: str) -> BootRequest:
    machine = machine_for(protocol)
    return BootRequest(
        cmdline=b"console=ttyS0",
        initrd=initramfs.archive([initramfs.file("hello", b"initrd" * 1000)]),
        dtb=device_tree(machine),
        reserved=machine.reserved,
        firmware=machine.firmware,
    )


# The magic of an Image, a branch over its header, and a loop that waits for interrupts.
IMAGES: Final = {
    "arm64": (b"ARM\x64", 0x14000010, (0xD503207F, 0x17FFFFFF)),
    "riscv64": (b"RSC\x05", 0x0400006F, (0x10500073, 0xFFDFF06F)),
}


def image_kernel(protocol: str) -> bytes:
    """An Image header that branches over itself to a WFI loop."""
    magic, branch, loop = IMAGES[protocol]
    header = struct.pack("<II QQQ QQQ 4sI", branch, 0, 0, MIB, 0, 0, 0, 0, magic, 0)
    return (header + struct.pack("<II", *loop)).ljust(0x1000, b"\x55")


def kernel_for(protocol: str) -> KernelLoaderResult:
    """What a loader would say of the few bytes that stand for a kernel here; 4 MiB of footprint."""
    entry = ENTRIES.get(protocol, X86_ENTRY)
    return KernelLoaderResult(
        kernel_load=entry,
        kernel_end=entry + 0x1000,
        setup_header=None,
        pvh_boot_cap=PvhBootCapability(PvhState.PRESENT, entry),
        footprint=Range(entry, 4 * MIB),
        entry_points={protocol: entry},
    )


def hand_over(mutation: Mutation, directory: Path) -> tuple[BootImage, Machine]:
    """Writes the boot image of a right hand-over, broken as the mutation says."""
    machine = machine_for(mutation.protocol)
    kernel = kernel_for(mutation.protocol)
    halts = b"\xf4\xeb\xfd".ljust(0x1000, b"\x55")
    code = image_kernel(mutation.protocol) if mutation.protocol in IMAGES else halts
    with GuestMemory(machine.banks, path=directory / bootimage.RAM) as memory:
        memory.write(kernel.kernel_load, code)
        handover = PROTOCOLS[mutation.protocol].configure(
            memory, kernel, request_for(mutation.protocol)
        )
        scene = Scene(memory, handover.registers)
        mutation.breaks(scene)
        image = BootImage(
            machine.arch.name, mutation.protocol, memory.banks, (scene.registers,), handover.regions
        )
    bootimage.save(image, directory)
    return image, machine


def outcome_of(mutation: Mutation, directory: Path, monkeypatch: pytest.MonkeyPatch) -> Outcome:
    image, machine = hand_over(mutation, directory)
    arch = ARCHITECTURES[image.arch]

    def stub(registers: Registers, *rest: Any) -> Stub:
        made: Stub = arch.stub(mutation.stub_does(registers), *rest)
        return replace(made, code=mutation.stub_first + made.code)  # position-independent

    monkeypatch.setattr(placement, "ARCHITECTURES", {image.arch: replace(arch, stub=stub)})
    if mutation.ram is not None:
        write, spoil = placement.write, mutation.ram

        def write_and_spoil(planned: placement.PlacedImage, memory: GuestMemory, to: Path) -> None:
            write(planned, memory, to)
            spoil(to / rundir.DEVICES_DIRECTORY)

        monkeypatch.setattr("bootproof.harness.run.write", write_and_spoil)
    expected = Expected(machine.arch.name, "", "", 1, image.ram, image.ram, CodeAt(()))
    return run(Start(image, machine, expected, budget=BUDGET), directory)


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_a_right_hand_over_has_no_finding(
    protocol: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome = outcome_of(Mutation(protocol, "nothing", ""), tmp_path, monkeypatch)
    probe = outcome.observation.probe
    assert probe is not None and probe.clean
    assert (probe.differences, probe.findings) == ((), ())
    assert outcome.judgement.verdict is Verdict.SILENT


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda m: m.id)
def test_mutation_is_caught(
    mutation: Mutation, tmp_path: Path, impatient: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome = outcome_of(mutation, tmp_path, monkeypatch)
    judgement, found = outcome.judgement, outcome.observation.probe
    assert judgement.verdict is mutation.verdict, judgement.reason
    if found is not None and found.reached:
        assert outcome.costs.instructions == found.instructions  # it has not gone on
    if mutation.verdict is Verdict.PROTOCOL_VIOLATION:
        assert f"{mutation.finding}: " in judgement.reason
    else:
        assert mutation.finding in judgement.reason


@pytest.mark.parametrize(("level", "name"), [(1, "SCTLR"), (2, "SCTLR_EL2")])
def test_mmu_must_be_off_at_either_level(level: int, name: str) -> None:
    registers = Arm64Registers(GIB, pstate=0x3C1 | level << 2)
    off = Hardware(registers, lambda address, size: None, (), system={name: 0xC50838})
    on = replace(off, system={name: 0xC50839, "SCTLR": 0xC50839})
    codes = [
        {finding.code for finding in broken_rules("arm64", hardware)} for hardware in (off, on)
    ]
    assert codes[1] - codes[0] == {"mmu-off"}


def test_a_32_bit_mode_is_no_exception_level() -> None:
    hardware = Hardware(Arm64Registers(GIB, pstate=0x1D3), lambda address, size: None, ())
    said = {finding.code: finding.sentence for finding in broken_rules("arm64", hardware)}
    assert said["exception-level"] == "the CPU is in AArch32, not at EL1 or EL2"


def test_other_selectors_are_tolerated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The letter of boot.rst is broken, and kernels boot all the same: reported, not failed. The
    descriptor table has nothing at these selectors.
    """

    def other_selectors(scene: Scene) -> None:
        code, data = replace(scene.x86.cs, selector=0x08), replace(scene.x86.ds, selector=0x20)
        scene.change(cs=code, ds=data, es=data, fs=data, gs=data, ss=data)

    mutation = Mutation("linux64", "other selectors", "", other_selectors)
    outcome = outcome_of(mutation, tmp_path, monkeypatch)
    probe = outcome.observation.probe
    assert probe is not None and probe.clean
    codes = ("cs-selector", "ds-selector", "es-selector", "ss-selector", "gdt")
    assert {(f.code, f.grade) for f in probe.findings} == {(c, Grade.TOLERATED) for c in codes}


def test_the_table_is_up_to_date() -> None:
    rows = [f"| {m.protocol} | {m.what} | `{m.verdict.value}` | `{m.finding}` |" for m in MUTATIONS]
    text = "\n".join(
        [
            "# Mutations of the hand-over",
            "",
            "Each line is a test that starts from a right hand-over, breaks one thing on a real",
            "QEMU, and sees the verdict and the finding named here. The tests write this table:",
            "`tests/harness/qemu/test_handover_mutations.py`.",
            "",
            "| protocol | what is broken | verdict | finding |",
            "|---|---|---|---|",
            *rows,
            "",
        ]
    )
    generated.assert_is(TABLE, text)
