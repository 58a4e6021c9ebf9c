"""The boot-image format: what is read back, what is refused and how, and the published schema."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import jsonschema
import pytest

from bootproof.loader import bootimage
from bootproof.loader.address import MIB, Range
from bootproof.loader.arch import How
from bootproof.loader.arch.aarch64 import Arm64Registers
from bootproof.loader.arch.table import ARCHITECTURES
from bootproof.loader.arch.x86_64 import DescriptorTable, Segment, X86Registers
from bootproof.loader.bootimage import BootImage, BootImageError, Unseen
from bootproof.loader.errors import GuestMemoryError
from bootproof.loader.layout import Region
from bootproof.loader.memory import Bank, GuestMemory
from bootproof.loader.protocols.table import PROTOCOLS as PROTOCOL_TABLE
from tests import ROOT

SCHEMA: Final = ROOT / "docs" / "boot-image.schema.json"
RAM_SIZE: Final = 2 * MIB

Document = dict[str, Any]
Change = Callable[[Document], object]


def document() -> Document:
    """A description with everything in it."""
    segment = {"selector": 0x18}
    return {
        "format": "bootproof boot image",
        "version": 1,
        "arch": "x86_64",
        "protocol": "linux64",
        "entry": "0x1000",
        "banks": [
            {"address": 0, "size": "0x100000", "offset": 0x100000},
            {"address": "0x100000000", "size": "1048576", "offset": "0x0"},
        ],
        "cpus": [
            {
                "rip": "0x1000",
                "cs": {"selector": "0x10", "base": 0, "limit": "0xffffffff", "attributes": 0xA09B},
                **dict.fromkeys(("ds", "es", "fs", "gs", "ss"), segment),
                "gdtr": {"base": "0x500", "limit": 0x1F},
                "rsi": "0x7000",
            }
        ],
        "regions": [{"name": "zero page", "address": "0x7000", "size": "0x1000"}],
        "provenance": {"kernel": "vmlinux", "cmdline": "console=ttyS0 ä"},
        "unseen": [{"field": "cpus[0].cr4", "how": "assumed", "source": "linux64"}],
    }


def backing(file: object, address: int, size: int) -> Document:
    return {"file": file, "address": hex(address), "size": hex(size)}


def arm64(**cpu: object) -> Document:
    return {
        "version": 1,
        "arch": "aarch64",
        "protocol": "arm64",
        "banks": [{"address": "0x40000000", "size": RAM_SIZE, "offset": 0}],
        "cpus": [{"pc": "0x40000000", **cpu}],
    }


def riscv64(**cpu: object) -> Document:
    return {
        "version": 1,
        "arch": "riscv64",
        "protocol": "riscv64",
        "banks": [{"address": "0x80000000", "size": RAM_SIZE, "offset": 0}],
        "cpus": [{"pc": "0x80200000", **cpu}],
    }


def written(directory: Path, content: Document | bytes) -> Path:
    raw = content if isinstance(content, bytes) else json.dumps(content).encode()
    (directory / "boot.json").write_bytes(raw)
    with (directory / "ram.img").open("wb") as file:
        file.truncate(RAM_SIZE)
    return directory


def refusal(directory: Path) -> str:
    """The one line with which a directory is refused, without the directory's own name."""
    with pytest.raises(BootImageError) as caught:
        bootimage.open_boot_image(directory)
    text = str(caught.value)
    assert text.isprintable() and len(text) < 400 + len(str(directory))
    assert text.startswith(f"{directory}/")
    return text.removeprefix(f"{directory}/")


def schema_accepts(content: Document) -> bool:
    validator = jsonschema.Draft202012Validator(json.loads(SCHEMA.read_text()))
    return bool(validator.is_valid(content))


def test_everything_is_read(tmp_path: Path) -> None:
    data = Segment(0x18)
    assert bootimage.open_boot_image(written(tmp_path, document())) == BootImage(
        arch="x86_64",
        protocol="linux64",
        banks=(Bank(0, MIB, MIB), Bank(1 << 32, MIB, 0)),
        cpus=(
            X86Registers(
                rip=0x1000,
                cs=Segment(0x10, 0, 0xFFFFFFFF, 0xA09B),
                ds=data,
                es=data,
                fs=data,
                gs=data,
                ss=data,
                gdtr=DescriptorTable(0x500, 0x1F),
                rsi=0x7000,
            ),
        ),
        regions=(Region("zero page", Range(0x7000, 0x1000)),),
        provenance={"kernel": "vmlinux", "cmdline": "console=ttyS0 ä"},
        unseen=(Unseen("cpus[0].cr4", How.ASSUMED, "linux64"),),
    )


def test_what_is_saved_reads_back_equal(tmp_path: Path) -> None:
    for content in (document(), arm64(x=[hex(n) for n in range(31)], sp=16), riscv64(satp=16)):
        image = bootimage.open_boot_image(written(tmp_path, content))
        bootimage.save(image, tmp_path)
        assert bootimage.open_boot_image(tmp_path) == image
        assert schema_accepts(json.loads((tmp_path / "boot.json").read_text()))


def test_what_may_be_left_out(tmp_path: Path) -> None:
    image = bootimage.open_boot_image(written(tmp_path, arm64()))
    assert image.cpus == (Arm64Registers(0x40000000),)
    assert (image.regions, image.provenance) == ((), {})


def test_banks_lie_anywhere_in_the_file(tmp_path: Path) -> None:
    directory = written(tmp_path, document())
    with (directory / "ram.img").open("r+b") as file:
        os.pwrite(file.fileno(), b"high", 0)
        os.pwrite(file.fileno(), b"low", MIB + 8)
    image = bootimage.open_boot_image(directory)
    with bootimage.open_ram(image, directory) as memory:
        assert memory.read(8, 4) == b"low\0"
        assert memory.read(1 << 32, 4) == b"high"
        assert list(memory.data_extents()) == [Range(0, 4096), Range(1 << 32, 4096)]
        assert memory.size == memory.banks[0].size + memory.banks[1].size == RAM_SIZE
        memory.save(tmp_path / "copy")
    with GuestMemory.open(tmp_path / "copy", image.banks) as copy:
        assert (copy.read(8, 4), copy.read(1 << 32, 4)) == (b"low\0", b"high")


def test_a_part_of_ram_may_have_a_file_of_its_own(tmp_path: Path) -> None:
    """It counts whole, its zeros too, whatever ram.img has there."""
    parts = [backing("kernel.img", 0x1000, 0x2000), backing("initrd.img", 1 << 32, 5)]
    directory = written(tmp_path, document() | {"backing": parts})
    with (directory / "ram.img").open("r+b") as file:
        os.pwrite(file.fileno(), b"r" * 0x4000, MIB)
    (directory / "kernel.img").write_bytes(b"kernel".ljust(0x2000, b"\0"))
    (directory / "initrd.img").write_bytes(b"initrd")
    image = bootimage.open_boot_image(directory)
    bootimage.save(image, tmp_path)
    assert bootimage.open_boot_image(tmp_path) == image
    before = (directory / "ram.img").read_bytes()
    with bootimage.open_ram(image, directory) as memory:
        assert memory.read(0xFFF, 8) == b"rkernel\0"
        assert memory.read(0x2FFC, 8) == b"\0\0\0\0rrrr"
        assert memory.read(1 << 32, 8) == b"initr\0\0\0"
    assert (directory / "ram.img").read_bytes() == before


def _as_fifo(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda path: path.unlink(), "cannot open the RAM file: No such file or directory"),
        (lambda path: os.truncate(path, 8191), "has 0x1fff bytes but its banks need 0x2000"),
        (lambda path: (path.unlink(), path.symlink_to("ram.img")), "is a symbolic link"),
        (_as_fifo, "is not a regular file"),
    ],
    ids=["missing", "short", "link", "fifo"],
)
def test_backing_files_are_regular_and_whole(
    spoil: Callable[[Path], object], reason: str, tmp_path: Path
) -> None:
    content = document() | {"backing": [backing("kernel.img", 0x1000, 0x2000)]}
    (written(tmp_path, content) / "kernel.img").write_bytes(bytes(0x2000))
    spoil(tmp_path / "kernel.img")
    with pytest.raises(GuestMemoryError, match=reason) as caught:
        bootimage.open_ram(bootimage.open_boot_image(tmp_path), tmp_path)
    assert caught.value.file == str(tmp_path / "kernel.img")


def test_memory_refuses_banks_that_share_bytes_of_the_file() -> None:
    with pytest.raises(GuestMemoryError, match="0x10000-0x11fff and 0x0-0xfff share bytes"):
        GuestMemory([Bank(0, 4096, 4096), Bank(0x10000, 8192, 0)])


# --- what is refused ---------------------------------------------------------------------------


def put(*path: str | int, value: object) -> Change:
    """Sets what `path` names."""

    def change(content: Document) -> None:
        target: Any = content
        for step in path[:-1]:
            target = target[step]
        target[path[-1]] = value

    return change


def unseen(field: str) -> Document:
    return {"field": field, "how": "assumed", "source": "linux64"}


def drop(*path: str | int) -> Change:
    def change(content: Document) -> None:
        target: Any = content
        for step in path[:-1]:
            target = target[step]
        del target[path[-1]]

    return change


PROTOCOLS: Final = "linux64, linux32, pvh, arm64, riscv64, none"
KEYS: Final = (
    "version, arch, protocol, banks, cpus, format, entry, regions, provenance, unseen, backing"
)
NUMBER: Final = 'expected a number such as 4096 or "0x1000", found '

# What a schema can say too, and what the reader says.
REFUSED: Final[list[tuple[Change, str]]] = [
    (drop("version"), "$.version: required and missing"),
    (put("version", value=2), "$.version: 0x2 is not known; this program reads 1"),
    (put("version", value=True), "$.version: true or false is not known; this program reads 1"),
    (put("version", value="1"), '$.version: "1" is not known; this program reads 1'),
    (put("format", value="vmdk"), '$.format: "vmdk" is not one of bootproof boot image'),
    (
        put("arch", value="x86-64"),
        '$.arch: "x86-64" is not one of x86_64, aarch64, riscv64; did you mean x86_64?',
    ),
    (put("arch", value=["x86_64"]), "$.arch: a list is not one of x86_64, aarch64, riscv64"),
    (
        put("protocol", value="linux46"),
        '$.protocol: "linux46" is not one of ' + PROTOCOLS + "; did you mean linux64?",
    ),
    (put("protocol", value="arm64"), "$.protocol: arm64 is a protocol of aarch64, not x86_64"),
    (put("bank", value=[]), "$.bank: unknown key; did you mean banks?"),
    (
        put("x", value=1),
        "$.x: unknown key; known: " + KEYS,
    ),
    (put("banks", value={}), "$.banks: expected a list, found an object"),
    (put("banks", value=[]), "$.banks: expected 1 to 64 items, found 0"),
    (put("banks", 0, value=None), "$.banks[0]: expected an object, found null"),
    (drop("banks", 1, "offset"), "$.banks[1].offset: required and missing"),
    (
        put("banks", 0, "adress", value=0),
        "$.banks[0].adress: unknown key; did you mean address?",
    ),
    (put("banks", 0, "size", value="1M"), f'$.banks[0].size: {NUMBER}"1M"'),
    (put("banks", 0, "size", value=0), "$.banks[0].size: must not be 0"),
    (put("banks", 0, "size", value="0x0"), "$.banks[0].size: must not be 0"),
    (put("banks", 0, "size", value=4096.5), f"$.banks[0].size: {NUMBER}4096.5"),
    (put("banks", 0, "size", value=True), f"$.banks[0].size: {NUMBER}true or false"),
    (put("banks", 0, "size", value="-0x1000"), f'$.banks[0].size: {NUMBER}"-0x1000"'),
    (put("banks", 0, "size", value="1_000"), f'$.banks[0].size: {NUMBER}"1_000"'),
    (put("banks", 0, "size", value=" 4096"), f'$.banks[0].size: {NUMBER}" 4096"'),
    (put("banks", 0, "size", value="0o10000"), f'$.banks[0].size: {NUMBER}"0o10000"'),
    (put("banks", 0, "size", value="٤٠٩٦"), f"$.banks[0].size: {NUMBER}" + json.dumps("٤٠٩٦")),
    (
        put("banks", 0, "address", value=-4096),
        "$.banks[0].address: -0x1000 is not an unsigned 64-bit number",
    ),
    (
        put("banks", 0, "address", value=1 << 64),
        "$.banks[0].address: 0x10000000000000000 is not an unsigned 64-bit number",
    ),
    (
        put("banks", 0, "address", value="0x10000000000000000"),
        "$.banks[0].address: 0x10000000000000000 is not an unsigned 64-bit number",
    ),
    (
        put("banks", 0, "address", value=1 << 148),
        "$.banks[0].address: 0x100000000000000000… (149 bits) is not an unsigned 64-bit number",
    ),
    (put("cpus", value=[]), "$.cpus: expected 1 to 256 items, found 0"),
    (put("cpus", 0, "rax", value={}), f"$.cpus[0].rax: {NUMBER}an object"),
    (drop("cpus", 0, "cs"), "$.cpus[0].cs: required and missing"),
    (drop("cpus", 0, "cs", "selector"), "$.cpus[0].cs.selector: required and missing"),
    (put("cpus", 0, "rflag", value=1), "$.cpus[0].rflag: unknown key; did you mean rflags?"),
    (
        put("cpus", 0, "gdtr", "size", value=1),
        "$.cpus[0].gdtr.size: unknown key; known: base, limit",
    ),
    (put("regions", value=None), "$.regions: expected a list, found null"),
    (put("regions", 0, "size", value=0), "$.regions[0].size: must not be 0"),
    (
        put("regions", value=[{"name": "r", "address": 0, "size": 1}] * 257),
        "$.regions: expected 0 to 256 items, found 257",
    ),
    (
        put("backing", value=[{"address": 0, "size": 1}]),
        "$.backing[0].file: required and missing",
    ),
    (
        put("backing", value=[backing("a.img", n, 1) for n in range(17)]),
        "$.backing: expected 0 to 16 items, found 17",
    ),
    (put("provenance", value=[]), "$.provenance: expected an object, found a list"),
    (put("provenance", "kernel", value=1), "$.provenance.kernel: expected a string, found 0x1"),
    (
        put("provenance", "kernel", value="a\0b"),
        "$.provenance.kernel: has a NUL character in it",
    ),
    (
        put("provenance", "kernel", value="a" * 65537),
        "$.provenance.kernel: has 65537 characters, at most 65536 are allowed",
    ),
    (
        put("provenance", value={str(n): "" for n in range(257)}),
        "$.provenance: has 257 entries, at most 256",
    ),
]
BAD_FILES: Final = ("ram.img", "../a.img", "A.img", "a", ".img", "a\n.img", "a" * 33 + ".img", 5)
BAD_NAMES: Final = ("", " a", "a" * 65, "a/b", "a\0b", "a\nb", "$(x)", "..", "\u202eevil", 5)

# What only the reader can say.
REFUSED_BY_THE_READER: Final[list[tuple[Change, str]]] = [
    (put("entry", value=1), "$.entry: differs from the program counter of $.cpus[0], 0x1000"),
    (put("banks", 1, "address", value="0xff000"), "the addresses 0x0-0xfffff and 0xff000-"),
    (put("banks", 1, "offset", value="0xff000"), "the offsets in ram.img 0xff000-0x1fefff and 0x1"),
    (put("banks", 0, "address", value=8), "$.banks[0].address: 0x8 is no multiple of 4096"),
    (put("banks", 0, "size", value="0xfff"), '$.banks[0].size: "0xfff" is no multiple of 4096'),
    (put("banks", 0, "offset", value=1), "$.banks[0].offset: 0x1 is no multiple of 4096"),
    (
        put("banks", 0, "offset", value="0x101000"),
        "$.banks[0]: ends at offset 0x201000 of ram.img, which has 0x200000 bytes",
    ),
    (
        put("banks", 0, "size", value="0x4000000000000000"),
        "$.banks: the addresses 0x0-0x3fffffffffffffff and 0x100000000-0x1000fffff overlap",
    ),
    (
        put("banks", 0, "address", value="0xfffffffffffff000"),
        "$.banks[0]: address 0xfffffffffffff000 + size 0x100000 does not fit 64 bits",
    ),
    (
        put("banks", 0, "offset", value="0xfffffffffffff000"),
        "$.banks[0]: offset 0xfffffffffffff000 + size 0x100000 does not fit 64 bits",
    ),
    (
        put("regions", 0, "address", value="0xfffffffffffffff0"),
        "$.regions[0]: address 0xfffffffffffffff0 + size 0x1000 does not fit 64 bits",
    ),
    (
        put("regions", value=[{"name": "kernel", "address": n, "size": 1} for n in (0, 4096)]),
        '$.regions[1].name: "kernel" occurs twice',
    ),
    (
        put("unseen", value=[unseen("cpus[0].cr4"), unseen("cpus[7].rax")]),
        '$.unseen[1].field: "cpus[7].rax" is no register in $.cpus; write cpus[0].rip',
    ),
    (
        put("unseen", value=[unseen("cpus[0].x0")]),
        '$.unseen[0].field: "cpus[0].x0" is no register in $.cpus',
    ),
    (
        put("unseen", value=[unseen("cpus[0].cr4"), unseen("cpus[0].cr4")]),
        '$.unseen[1].field: "cpus[0].cr4" occurs twice',
    ),
    (
        put("backing", value=[backing("kernel.img", 0x80000, 0x100000)]),
        "$.backing[0]: 0x80000-0x17ffff is not inside one bank",
    ),
    (
        put("backing", value=[backing("a.img", 0, 8193), backing("b.img", 8192, 1)]),
        "$.backing: the addresses 0x0-0x2000 and 0x2000-0x2000 overlap",
    ),
]


@pytest.mark.parametrize(("change", "reason"), REFUSED, ids=range(len(REFUSED)))
def test_refused_by_reader_and_schema(change: Change, reason: str, tmp_path: Path) -> None:
    content = document()
    change(content)
    assert refusal(written(tmp_path, content)) == f"boot.json: {reason}"
    assert not schema_accepts(content)


@pytest.mark.parametrize(
    ("change", "reason"), REFUSED_BY_THE_READER, ids=range(len(REFUSED_BY_THE_READER))
)
def test_refused_by_the_reader(change: Change, reason: str, tmp_path: Path) -> None:
    content = document()
    change(content)
    assert reason in refusal(written(tmp_path, content))
    assert schema_accepts(content)


@pytest.mark.parametrize("name", BAD_NAMES)
def test_names_of_regions_are_plain(name: object, tmp_path: Path) -> None:
    """They become file names and words of a shell script."""
    content = document()
    put("regions", 0, "name", value=name)(content)
    assert refusal(written(tmp_path, content)).startswith("boot.json: $.regions[0].name: ")
    assert not schema_accepts(content)


@pytest.mark.parametrize("name", BAD_FILES)
def test_names_of_backing_files_are_plain(name: object, tmp_path: Path) -> None:
    """They become words of a shell script, and lead out of no directory."""
    content = document() | {"backing": [backing(name, 0, 4096)]}
    assert refusal(written(tmp_path, content)).startswith("boot.json: $.backing[0].file: ")
    assert not schema_accepts(content)


@pytest.mark.parametrize("x", [[], ["0x0"] * 30, ["0x0"] * 32])
def test_arm64_has_31_registers(x: list[str], tmp_path: Path) -> None:
    content = arm64(x=x)
    reason = f"$.cpus[0].x: expected 31 items, found {len(x)}"
    assert refusal(written(tmp_path, content)) == f"boot.json: {reason}"
    assert not schema_accepts(content)


def test_schema_accepts_what_the_reader_does(tmp_path: Path) -> None:
    """Each key that may be left out, left out; every way to write a number."""
    accepted = [document(), arm64(), arm64(x=[0] * 31, sp="16", pstate="0x3C9")]
    accepted += [riscv64(), riscv64(x=[0] * 32, satp="0", sie=1, privilege="3")]
    for key in ("format", "entry", "regions", "provenance"):
        accepted.append(document())
        del accepted[-1][key]
    for name in ("a", "zero page", "ACPI_1.0+x-y", "9" * 64):
        accepted.append(document())
        accepted[-1]["regions"][0]["name"] = name
    accepted.append(document() | {"protocol": "none"})
    accepted.append(document() | {"backing": [backing("kernel-1.img", 0x1000, 1)]})
    for content in accepted:
        bootimage.open_boot_image(written(tmp_path, content))
        assert schema_accepts(content)


def test_schema_knows_every_register_and_protocol() -> None:
    """One that is added to the reader is added to the schema, and the other way round."""
    schema = json.loads(SCHEMA.read_text())
    for arch in ARCHITECTURES.values():
        assert set(schema["$defs"][arch.name]["properties"]) == set(arch.registers.__slots__)
    assert schema["properties"]["arch"]["enum"] == list(ARCHITECTURES)
    known = [*PROTOCOL_TABLE, bootimage.NO_PROTOCOL]
    assert schema["properties"]["protocol"]["enum"] == known
    assert schema["properties"]["version"]["const"] == bootimage.FORMAT_VERSION
    assert schema["$id"].endswith(f":{bootimage.FORMAT_VERSION}")


# --- hostile files -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "not JSON: Expecting value"),
        (b"\xff\xfe", "not UTF-8 at byte 0"),
        (json.dumps(document()).encode("utf-16"), "not UTF-8 at byte 0"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"a":' * 100_000, "nested too deeply"),
        (b"[]", "$: expected an object, found a list"),
        (b'{"version": NaN}', "NaN is no number"),
        (b'{"version": 1, "version": 1}', 'the key "version" occurs twice in one object'),
        (b'{"version": ' + b"9" * 5000 + b"}", "a number with 5000 digits"),
        (b'{"version": 1e999999}', "$.arch: required and missing"),
        (b'{"\\u0000\\u001b[2J\\n": 1}', '$["\\u0000\\u001b[2J\\n"]: unknown key'),
        (b'{"' + b"k" * 5000 + b'": 1}', '$["kkk'),
        (b" " * (1 << 20) + b"{}", "is larger than 1 MiB"),
    ],
    ids=range(13),
)
def test_hostile_json_is_one_line(raw: bytes, reason: str, tmp_path: Path) -> None:
    assert reason in refusal(written(tmp_path, raw))


def test_description_of_a_gibibyte_is_not_read(tmp_path: Path) -> None:
    written(tmp_path, b"")
    with (tmp_path / "boot.json").open("wb") as file:
        file.truncate(1 << 30)
    assert refusal(tmp_path) == "boot.json: is larger than 1 MiB"


def test_ram_of_64_tib_costs_nothing(tmp_path: Path) -> None:
    content = document()
    content["banks"] = [{"address": 0, "size": 1 << 45, "offset": 1 << 45}]
    written(tmp_path, content)
    try:
        os.truncate(tmp_path / "ram.img", 1 << 46)
    except OSError:
        content["banks"] = [{"address": 0, "size": 1 << 42, "offset": 1 << 42}]
        written(tmp_path, content)
        os.truncate(tmp_path / "ram.img", 1 << 43)
    image = bootimage.open_boot_image(tmp_path)
    with bootimage.open_ram(image, tmp_path) as memory:
        assert list(memory.data_extents()) == []


LINK, FIFO, DIRECTORY, NOTHING = "is a symbolic link", "not a regular file", "a directory", ""


@pytest.mark.parametrize("name", ["boot.json", "ram.img"])
@pytest.mark.parametrize("kind", [LINK, FIFO, DIRECTORY, NOTHING])
def test_only_regular_files_are_opened(name: str, kind: str, tmp_path: Path) -> None:
    """A link could name any file of the host's, and a FIFO would be waited for."""
    path = written(tmp_path, document()) / name
    path.rename(tmp_path / "elsewhere")
    if kind == LINK:
        path.symlink_to("elsewhere")
    elif kind == FIFO:
        os.mkfifo(path)
    elif kind == DIRECTORY:
        path.mkdir()
    reasons = {DIRECTORY: "not a regular file", NOTHING: "No such file or directory"}
    advice = "; name the directory that holds boot.json and ram.img"
    told = advice if (name, kind) == ("boot.json", NOTHING) else ""
    assert refusal(tmp_path) == f"{name}: no boot image: {reasons.get(kind, kind)}{told}"


def test_link_put_in_after_the_check_is_not_followed(tmp_path: Path) -> None:
    image = bootimage.open_boot_image(written(tmp_path, document()))
    (tmp_path / "ram.img").unlink()
    (tmp_path / "ram.img").symlink_to("/dev/zero")
    with pytest.raises(GuestMemoryError, match="the RAM file is a symbolic link"):
        bootimage.open_ram(image, tmp_path)
    (tmp_path / "ram.img").unlink()
    os.mkfifo(tmp_path / "ram.img")
    with pytest.raises(GuestMemoryError, match="the RAM file is not a regular file"):
        bootimage.open_ram(image, tmp_path)
