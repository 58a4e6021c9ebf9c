"""`bootproof import`: files of RAM, cores, and gdb stubs that show little, or lie."""

from __future__ import annotations

import contextlib
import json
import os
import re
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from bootproof.harness import cli
from bootproof.harness.host import files
from bootproof.harness.qemu import remote
from bootproof.loader import bootimage, conformance
from bootproof.loader.address import MIB, Range
from bootproof.loader.arch import to_json
from bootproof.loader.arch.aarch64 import Arm64Registers
from bootproof.loader.arch.x86_64 import X86Registers
from bootproof.loader.bootimage import BootImage
from bootproof.loader.memory import GuestMemory
from bootproof.loader.protocols.protocol import Handover
from bootproof.loader.protocols.table import PROTOCOLS
from bootproof.loader.rules import Grade
from tests.builders import handover
from tests.builders.guests import X86Program
from tests.builders.images import ElfFile, load, note, notes
from tests.builders.processes import LOAD, vmlinux_with_text

Run = Callable[..., tuple[int, str]]


@pytest.fixture
def run(capfd: pytest.CaptureFixture[str]) -> Run:
    """The exit code of a command, and what it said."""

    def call(*words: object) -> tuple[int, str]:
        capfd.readouterr()
        code = cli.main([str(word) for word in words])
        said = capfd.readouterr()
        if code == 2:
            assert re.fullmatch(r"bootproof: [^\n]+\n", said.err), said.err
        return code, said.out + said.err

    return call


@contextmanager
def prepared(protocol: str) -> Iterator[tuple[GuestMemory, Handover]]:
    with GuestMemory([(handover.base(protocol), handover.SIZE)]) as memory:
        yield memory, handover.prepare(protocol, memory)


def opened(directory: Path) -> tuple[BootImage, dict[Range, bytes]]:
    """A boot image, and the RAM that is not zero."""
    image = bootimage.open_boot_image(directory)
    with bootimage.open_ram(image, directory) as ram:
        return image, contents(ram)


def contents(memory: GuestMemory) -> dict[Range, bytes]:
    return {area: memory.read(area.start, area.size) for area in memory.nonzero_extents()}


# --- files ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_file_of_ram_and_an_entry(protocol: str, tmp_path: Path, run: Run) -> None:
    """As Firecracker's snapshot has one: dense, and nothing but RAM."""
    with prepared(protocol) as (memory, made):
        base = handover.base(protocol)
        (tmp_path / "ram").write_bytes(memory.read(base, handover.SIZE))
        wanted = contents(memory)
    entry = hex(made.registers.pc)
    out = tmp_path / "image"
    words = ("--protocol", protocol, "--entry", entry, "--out", out)
    code, said = run("import", tmp_path / "ram", *words)
    assert code == 0, said
    image, ram = opened(out)
    assert ram == wanted
    assert (out / "ram.img").stat().st_blocks * 512 < MIB
    assert image.ram == (Range(base, handover.SIZE),)
    assert f": by {protocol}; rules on them tell nothing of the VMM" in said
    assert {finding.grade for finding in conformance.check(out)} <= {Grade.TOLERATED}


def test_registers_that_the_user_knows(tmp_path: Path, run: Run) -> None:
    with prepared("pvh") as (memory, made):
        memory.save(tmp_path / "ram")
    registers = to_json(made.registers)
    (tmp_path / "registers.json").write_text(json.dumps(registers))
    words = ["--registers", tmp_path / "registers.json", "--out", tmp_path / "image"]
    code, said = run("import", tmp_path / "ram", *words)
    assert code == 0, said
    image, _ = opened(tmp_path / "image")
    assert (image.cpus, image.protocol, image.unseen) == ((made.registers,), "pvh", ())
    (tmp_path / "registers.json").write_text('{"rax": "0x1", "rxa": 2}')
    code, said = run("import", tmp_path / "ram", *words)
    assert (code, "$.rxa: unknown key; did you mean" in said) == (2, True), said


def test_registers_in_a_fifo_are_not_waited_for(tmp_path: Path, run: Run) -> None:
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "ram").write_bytes(bytes(8192))
    words = ("--registers", tmp_path / "fifo", "--out", tmp_path / "image")
    code, said = run("import", tmp_path / "ram", *words)
    assert (code, "is not a regular file" in said) == (2, True), said
    assert not (tmp_path / "image").exists()


@pytest.mark.parametrize(
    ("size", "words", "said"),
    [
        (0, (), "ram: has 0 bytes, and RAM has some multiple of 4096; give a core"),
        (8191, (), "ram: has 8191 bytes, and RAM has some multiple of 4096; give a core"),
        (8192, ("--ram", "12K"), "ram: has 8 KiB, but RAM 0x0-0x2fff has 12 KiB (--ram)"),
    ],
)
def test_files_that_are_not_the_ram_that_is_told(
    size: int, words: tuple[str, ...], said: str, tmp_path: Path, run: Run
) -> None:
    (tmp_path / "ram").write_bytes(bytes(size))
    code, told = run("import", tmp_path / "ram", *words, "--out", tmp_path / "image")
    assert (code, said in told) == (2, True), told
    assert not (tmp_path / "image").exists()


def test_holes_of_a_file_are_not_read(tmp_path: Path, run: Run) -> None:
    """A snapshot of a large guest is sparse: to read its 512 GiB of zeros would take minutes."""
    with prepared("pvh") as (memory, made):
        memory.save(tmp_path / "ram")
        wanted = contents(memory)
    os.truncate(tmp_path / "ram", 512 << 30)
    words = ("--protocol", "pvh", "--entry", hex(made.registers.pc), "--out", tmp_path / "image")
    code, said = run("import", tmp_path / "ram", *words)
    assert code == 0, said
    assert opened(tmp_path / "image")[1] == wanted


def test_ram_that_is_told_twice(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--ram", "0-0x1fff,0x1000-0x1fff", "--out", str(tmp_path / "image")]
    assert cli.main(["import", str(tmp_path / "ram"), *words]) == 2
    assert "argument --ram: 0x0-0x1fff and 0x1000-0x1fff overlap" in capsys.readouterr().err


def test_file_of_ram_that_is_in_two_pieces(tmp_path: Path, run: Run) -> None:
    """As Firecracker writes it of a guest with more than 3 GiB: the gap below 4 GiB is not in it.

    Taken as one piece, the map that the guest is told of would be called wrong, and it is right.
    """
    with prepared("linux64") as (memory, made):
        low = memory.read(0, handover.SIZE)
        zero_page = dict(to_json(made.registers))["rsi"]
        entry = hex(made.registers.pc)
    told = bytearray(low)
    at = int(str(zero_page), 16)
    count = told[at + 0x1E8]
    told[at + 0x1E8] = count + 1  # e820_entries
    struct.pack_into("<QQI", told, at + 0x2D0 + 20 * count, 4 << 30, MIB, 1)
    (tmp_path / "ram").write_bytes(bytes(told) + bytes(MIB))
    words = ("--protocol", "linux64", "--entry", entry, "--out", tmp_path / "image")
    code, said = run("import", tmp_path / "ram", *words)
    assert (code, "which is not in one piece" in said) == (2, True), said
    assert not (tmp_path / "image").exists()
    pieces = f"0-{handover.SIZE - 1:#x},0x100000000-{(4 << 30) + MIB - 1:#x}"
    code, said = run("import", tmp_path / "ram", "--ram", pieces, *words)
    assert code == 0, said
    assert {finding.grade for finding in conformance.check(tmp_path / "image")} <= {Grade.TOLERATED}


def core_of(memory: GuestMemory, *cpus: X86Registers | Arm64Registers) -> bytes:
    """As QEMU dumps a machine: RAM, a device's memory, and its CPUs."""
    loads = [load(area.start, data) for area, data in contents(memory).items()]
    loads = [load(0, memory.read(0, handover.SIZE)), load(0xFD000000, b"device", memsz=4096)]
    each = [one for registers in cpus for one in x86_notes(registers)]
    return replace(ElfFile((notes(*each), *loads)), type=4).build()


def x86_notes(r: X86Registers | Arm64Registers) -> list[bytes]:
    assert isinstance(r, X86Registers)
    general = ("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rsp", "rbp")
    numbers = [getattr(r, name) for name in general]
    numbers += [getattr(r, f"r{number}") for number in range(8, 16)] + [r.rip, r.rflags]
    for name in ("cs", "ds", "es", "fs", "gs", "ss", "ldtr", "tr"):
        s = getattr(r, name)
        numbers += [s.selector, s.limit, s.attributes << 8, 0, s.base]
    for table in (r.gdtr, r.idtr):
        numbers += [0, table.limit, 0, 0, table.base]
    numbers += [r.cr0, 0, r.cr2, r.cr3, r.cr4, 0]
    state = struct.pack("<2I18Q" + 10 * "4IQ" + "6Q", 1, 440, *numbers)
    return [note(b"CORE\0", 1, bytes(336)), note(b"QEMU\0", 0, state)]


@pytest.mark.parametrize("protocol", ["linux64", "linux32", "pvh"])
def test_core_of_a_machine(protocol: str, tmp_path: Path, run: Run) -> None:
    with prepared(protocol) as (memory, made):
        assert isinstance(made.registers, X86Registers)
        (tmp_path / "vm.core").write_bytes(core_of(memory, made.registers))
        wanted = contents(memory)
    code, said = run("import", tmp_path / "vm.core", "--out", tmp_path / "image")
    assert code == 0, said
    image, ram = opened(tmp_path / "image")
    assert (image.cpus, image.protocol, ram) == ((made.registers,), protocol, wanted)
    assert image.ram == (Range(0, handover.SIZE),)
    assert "left out  0xfd000000-0xfd000fff" in said
    assert "derived   efer: from cr0 and cs" in said


def test_core_of_several_cpus(tmp_path: Path, run: Run) -> None:
    """The others as firmware leaves them; and one of them that is not halted."""
    with prepared("pvh") as (memory, made):
        assert isinstance(made.registers, X86Registers)
        memory.write(0x9000, b"\xf4\xeb\xfd")
        halted = replace(made.registers, rip=0x9001)
        (tmp_path / "vm.core").write_bytes(core_of(memory, made.registers, halted))
        awake = replace(halted, rflags=0x202)
        (tmp_path / "awake.core").write_bytes(core_of(memory, made.registers, awake))
    for name, others in (("vm.core", halted), ("awake.core", awake)):
        code, said = run("import", tmp_path / name, "--out", tmp_path / f"{name}.image")
        assert code == 0, said
        assert "x86_64, 2 CPUs\n" in said
        image, _ = opened(tmp_path / f"{name}.image")
        assert image.cpus == (made.registers, others)
        assert "derived   efer, cpus[1].efer: from cr0 and cs" in said
    codes = [finding.code for finding in conformance.check(tmp_path / "vm.core.image")]
    assert codes == ["cpus"]  # nothing tells this guest of its second CPU
    codes = [finding.code for finding in conformance.check(tmp_path / "awake.core.image")]
    assert codes == ["secondary-cpu", "cpus"]


def test_core_whose_kernel_stands_on_another_cpu(tmp_path: Path, run: Run) -> None:
    with prepared("pvh") as (memory, made):
        assert isinstance(made.registers, X86Registers)
        waiting = replace(made.registers, rip=0x9000, rbx=0)
        (tmp_path / "vm.core").write_bytes(core_of(memory, waiting, made.registers))
    code, said = run("import", tmp_path / "vm.core", "--out", tmp_path / "image")
    assert (code, "vm.core: CPU 1 is led to boot parameters, and CPU 0 is not" in said) == (2, True)
    assert not (tmp_path / "image").exists()


@pytest.mark.parametrize(
    ("change", "finding"),
    [
        (lambda m, r: (m.write(r.rbx, b"?"), r)[1], "start-info-magic"),
        (lambda m, r: replace(r, rbx=r.rbx + 1), "start-info-magic"),
        (lambda m, r: replace(r, cr4=0x20), "cr4-zero"),
        (lambda m, r: replace(r, es=replace(r.es, selector=0x28, base=0x1000)), "es-flat"),
    ],
)
def test_one_register_or_byte_that_is_wrong_is_named(
    change: Callable[[GuestMemory, X86Registers], X86Registers],
    finding: str,
    tmp_path: Path,
    run: Run,
) -> None:
    with prepared("pvh") as (memory, made):
        assert isinstance(made.registers, X86Registers)
        broken = change(memory, made.registers)
        (tmp_path / "vm.core").write_bytes(core_of(memory, broken))
    words = ("--protocol", "pvh", "--out", tmp_path / "image")
    code, said = run("import", tmp_path / "vm.core", *words)
    assert code == 0, said
    code, said = run("run", tmp_path / "image", "--only-handover", "--out", tmp_path / "run")
    assert code == 1, said
    assert f"protocol-violation: {finding}: " in said


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ([], "give one source: a file, or --gdb HOST:PORT"),
        (["ram", "--gdb", ":1"], "give one source"),
        (["nosuch"], "No such file or directory"),
        (["vmlinux"], "vmlinux: an ELF file, but no core of a machine"),
        (["kdump"], "kdump: a compressed dump, which cannot be read; dump it as ELF"),
        (["ram", "--protocol", "pvh"], "the program counter was not seen; give it by --entry"),
        (["ram", "--entry", "0x1000"], "--protocol"),
        (["ram", "--protocol", "arm64", "--arch", "x86_64"], "arm64 is a protocol of aarch64"),
        (["ram", "--protocol", "pvh", "--entry", "1M", "--ram", "1T"], "has 1 MiB, but RAM 0x0-"),
        (["ram", "--protocol", "pvh", "--entry", "1M"], "RAM has no hvm_start_info; give it in"),
        (["--gdb", ""], "--gdb '': neither HOST:PORT nor unix:PATH"),
        (["--gdb", "example:99999"], "neither HOST:PORT nor unix:PATH"),
        (["--gdb", "unix:nosuch"], "cannot be connected to: No such file or directory"),
        (["--gdb", "192.0.2.1:1234"], "is another host; say --remote"),
    ],
)
def test_refused(
    words: list[str], reason: str, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("ram").write_bytes(bytes(MIB))
    Path("vmlinux").write_bytes(ElfFile((load(0, b"x"),)).build())
    Path("kdump").write_bytes(b"KDUMP   ".ljust(4096))
    code, said = run("import", *words, "--out", "image")
    assert (code, reason in said) == (2, True), said
    assert not Path("image").exists()


def test_a_source_is_not_deleted_for_its_own_image(tmp_path: Path, run: Run) -> None:
    """That of a boot image has the name of what is written."""
    (tmp_path / "boot.json").write_text("{}")
    (tmp_path / "ram.img").write_bytes(bytes(MIB))
    words = ("--protocol", "pvh", "--entry", "1M", "--out", tmp_path)
    code, said = run("import", tmp_path / "ram.img", *words)
    assert (code, "ram.img, which is to be read; take another directory" in said) == (2, True), said
    assert {path.name for path in tmp_path.iterdir()} == {"boot.json", "ram.img"}


@pytest.mark.parametrize("command", ["import", "image"])
def test_a_directory_in_use_is_left_alone(command: str, tmp_path: Path, run: Run) -> None:
    kernel, out = tmp_path / "vmlinux", tmp_path / "out"
    kernel.write_bytes(vmlinux_with_text(X86Program(LOAD).reset()))
    out.mkdir()
    with files.locked(out):
        code, said = run(command, kernel, "--out", out)
    assert (code, "another run is under way there" in said) == (2, True), said


# --- gdb stubs -----------------------------------------------------------------------------------


@dataclass
class Stub:
    """A stub that shows what Firecracker's does: no control registers, answers with repetitions.

    `lies` are answers to packets by how these begin.
    """

    memory: GuestMemory
    registers: X86Registers
    lies: dict[str, bytes | None] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)
    failure: BaseException | None = None

    def answer(self, packet: str) -> bytes | None:
        for start, lie in self.lies.items():
            if packet.startswith(start):
                return lie
        if packet == "g":
            return self._registers().hex().encode()
        if packet.startswith("m"):
            address, size = (int(number, 16) for number in packet[1:].split(","))
            if not self.memory.contains(address, size):
                return b"E14"
            return repeated(self.memory.read(address, size).hex().encode())
        known = {"?": b"T05", "c": b"T05swbreak:;", "D": b"OK", "qSupported": b"PacketSize=1000"}
        known |= {"Z0": b"OK", "z0": b"OK"}
        return next((known[start] for start in known if packet.startswith(start)), b"")

    def _registers(self) -> bytes:
        r = self.registers
        general = ("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp")
        numbers = [getattr(r, name) for name in general]
        numbers += [getattr(r, f"r{number}") for number in range(8, 16)]
        selectors = [getattr(r, name).selector for name in ("cs", "ss", "ds", "es", "fs", "gs")]
        return struct.pack("<17Q7I", *numbers, r.rip, r.rflags, *selectors) + bytes(372)

    def serve(self, listener: socket.socket) -> None:
        with listener, listener.accept()[0] as client, contextlib.suppress(OSError):
            rest = b""
            while data := client.recv(65536):
                rest += data
                while found := re.match(rb"[+-]*\$([^#]*)#..", rest, re.DOTALL):
                    rest = rest[found.end() :]
                    packet = found[1].decode()
                    self.asked.append(packet)
                    reply = self.answer(packet)
                    if reply is not None:
                        client.sendall(b"+$%s#%02x" % (reply, sum(reply) & 0xFF))


def repeated(text: bytes) -> bytes:
    """Run-length encoded, as the GDB manual says ("Overview")."""

    def encoded(run: re.Match[bytes]) -> bytes:
        count = len(run[0]) - 1
        return run[0] if count < 3 or count in (6, 7) else b"%c*%c" % (run[0][0], count + 29)

    return re.sub(rb"(.)\1{3,90}", encoded, text)


@contextmanager
def listening(stub: Stub) -> Iterator[str]:
    listener = socket.create_server(("127.0.0.1", 0))
    where = f"127.0.0.1:{listener.getsockname()[1]}"
    thread = threading.Thread(target=stub.serve, args=(listener,), daemon=True)
    thread.start()
    yield where
    thread.join(10)


@pytest.mark.parametrize("protocol", ["linux64", "pvh"])
def test_stub_without_control_registers(protocol: str, tmp_path: Path, run: Run) -> None:
    """What was not seen follows from RAM and protocol, and the image starts."""
    with prepared(protocol) as (memory, made):
        assert isinstance(made.registers, X86Registers)
        stub = Stub(memory, made.registers)
        wanted = contents(memory)
        with listening(stub) as where:
            words = ("--gdb", where, "--break", "0x1000000", "--out", tmp_path / "image")
            code, said = run("import", *words)
    assert code == 0, said
    image, ram = opened(tmp_path / "image")
    assert (image.protocol, ram) == (protocol, wanted)
    assert "Z0,1000000,1" in stub.asked and "z0,1000000,1" in stub.asked
    assert not any(packet[:1] in "GMPXDk" for packet in stub.asked)  # nothing was changed
    assert "assumed" in said and "derived" in said
    code, said = run("run", tmp_path / "image", "--only-handover", "--out", tmp_path / "run")
    assert code == 0, said
    assert "; rules on them tell nothing of the VMM" in said
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    assert {"field": "cpus[0].cr0", "how": f"assumed by {protocol}"} in result["unseen"]


@pytest.mark.parametrize(
    ("lies", "reason"),
    [
        ({"?": b"W00"}, "there is no guest to look at"),
        ({"g": b"E01"}, "for registers"),
        ({"g": b"00" * 100}, "shows 100 bytes of registers, without r12"),
        ({"g": b"xx"}, "for registers"),
        ({"m": b"E14"}, "which RAM the guest has is told by nothing"),
        ({"m1000000": b"00"}, "the stub gives"),
        ({"m1000000": b"zz"}, "for the memory at 0x1000000"),
        ({"m1000000": None}, "the stub does not answer"),
        ({"m1000000": b"0" * (2 << 20)}, "bytes that are no answer"),
        ({"Z": b""}, "sets no breakpoint"),
        ({"c": b"X0b"}, "the guest ended before it came to"),
        ({"qSupported": None}, "the stub does not answer"),
    ],
)
def test_a_stub_that_lies(
    lies: dict[str, bytes | None],
    reason: str,
    tmp_path: Path,
    run: Run,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if None in lies.values():  # what does come may take long on a busy host
        monkeypatch.setattr(remote, "ANSWER_SECONDS", 1.0)
    with prepared("pvh") as (memory, made):
        assert isinstance(made.registers, X86Registers)
        with listening(Stub(memory, made.registers, lies)) as where:
            words = ("--gdb", where, "--break", "0x1000000", "--out", tmp_path / "image")
            code, said = run("import", *words)
    assert (code, reason in said) == (2, True), said
    assert not (tmp_path / "image").exists()
