"""Device trees: what dtc makes of ours, and what becomes of broken ones."""

from __future__ import annotations

import re
import struct
import subprocess

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bootproof.harness.qemu.devicetree import device_tree
from bootproof.harness.qemu.machine import Machine
from bootproof.loader.address import MIB, Range
from bootproof.loader.device_tree import DeviceTree, DeviceTreeError, Node, for_kernel
from tests.builders.programs import host_program

# Everything that one might get wrong: reservations, a boot CPU, names with odd characters,
# properties that look like text and are none, empty ones, deep nodes, seeds.
SOURCE = """
/dts-v1/;
/memreserve/ 0x0000000043000000 0x0000000000100000;
/memreserve/ 0xffffffff00000000 0x0000000000000010;
/ {
    #address-cells = <2>;
    model = "test,machine";
    compatible = "one", "two", "three";
    empty;
    bytes = [00 ff 80 7f 41];
    zero = "";
    zeros = [00 00 00 00];
    odd = [41 42 43];
    umlaut = [c3 a4 00];
    latin = [e4 00];
    text-with-nul-in-the-middle = "a", "", "b";
    aliases { serial0 = "/soc/serial@9000000"; };
    soc { serial@9000000 { reg = <0x0 0x9000000 0x0 0x1000>; a,b+c?_.-#1 = <1>; }; };
    chosen {
        stdout-path = "/soc/serial@9000000";
        kaslr-seed = <0x1 0x2>;
        rng-seed = [00 01 02 03];
        other = "kept";
        node { bootargs = "not the one"; };
    };
};
"""

SEED = bytes.fromhex("2528fac15e38a48a80b3c74a9cd2929b7bc6d11ddc19009af136d24a727661eb")
# As dtc prints it: words, and no seed of anybody else's.
RNG_SEED = (
    "\t\trng-seed = <" + " ".join(f"{word:#04x}" for word in struct.unpack(">8I", SEED)) + ">;"
)


def dtc(source: str, *options: str) -> bytes:
    command = [host_program("dtc"), "-q", "-I", "dts", "-O", "dtb", *options]
    return subprocess.run(command, input=source.encode(), capture_output=True, check=True).stdout


def decompiled(tree: bytes) -> list[str]:
    command = [host_program("dtc"), "-I", "dtb", "-O", "dts", "-s"]
    run = subprocess.run(command, input=tree, capture_output=True, check=True)
    assert b"ERROR" not in run.stderr
    return run.stdout.decode("latin-1").splitlines()


def changed(lines: list[str], out: tuple[str, ...], into: list[str]) -> list[str]:
    """Source lines with some of /chosen's own taken out and others put in, in dtc's order."""
    start = lines.index("\tchosen {") + 1
    end = next(i for i in range(start, len(lines)) if lines[i] in ("\t};", ""))
    kept = [line for line in lines[start:end] if not line.strip().startswith(out)]
    return lines[:start] + sorted([*kept, *into]) + lines[end:]


@pytest.fixture(scope="module")
def tree() -> bytes:
    return dtc(SOURCE, "-b", "3")


def test_only_chosen_changes(tree: bytes) -> None:
    patched = for_kernel(
        tree, cmdline=b"quiet console=ttyAMA0", initrd=Range(0x48000000, 0x1234), label="a-b c"
    )
    assert decompiled(patched) == changed(
        decompiled(tree),
        ("kaslr-seed", "rng-seed"),
        [
            RNG_SEED,
            '\t\tbootargs = "quiet console=ttyAMA0";',
            '\t\tbootproof,request = "a-b c";',
            "\t\tlinux,initrd-end = <0x00 0x48001234>;",
            "\t\tlinux,initrd-start = <0x00 0x48000000>;",
        ],
    )


def test_without_initrd_and_label(tree: bytes) -> None:
    patched = for_kernel(tree, cmdline=b"x", initrd=None)
    wanted = changed(
        decompiled(tree), ("kaslr-seed", "rng-seed"), [RNG_SEED, '\t\tbootargs = "x";']
    )
    assert decompiled(patched) == wanted


@pytest.mark.parametrize("other", ["", "other@1000 { reg = <0x0 0x1000 0x0 0x10>; };"])
def test_ram_of_a_firmware_is_reserved(other: str) -> None:
    """Beside what is reserved already."""
    cells = "#address-cells = <2>; #size-cells = <2>; ranges;"
    before = f"reserved-memory {{ {cells} {other} }};" if other else ""
    firmware = """
        firmware@80000000 { reg = <0x0 0x80000000 0x0 0x200000>; no-map; };
        firmware@100000000 { reg = <0x1 0x0 0x0 0x100000>; no-map; };
    """
    patched = for_kernel(
        dtc(f"/dts-v1/; / {{ {before} }};"),
        cmdline=b"x",
        initrd=None,
        firmware=[Range(0x8000_0000, 2 * MIB), Range(1 << 32, MIB)],
    )
    chosen = f'chosen {{ bootargs = "x"; {RNG_SEED} }};'
    wanted = dtc(f"/dts-v1/; / {{ {chosen} reserved-memory {{ {cells} {firmware} {other} }}; }};")
    assert decompiled(patched) == decompiled(wanted)


def test_header(tree: bytes) -> None:
    """Version 17, readable by 16; boot CPU and size as they should be."""
    patched = for_kernel(tree, cmdline=b"x", initrd=None)
    magic, total, *_, version, compatible, boot_cpu, _, _ = struct.unpack(">10I", patched[:40])
    assert (magic, total) == (0xD00DFEED, len(patched))
    assert (version, compatible, boot_cpu) == (17, 16, 3)


def test_property_bytes_are_kept_exactly(tree: bytes) -> None:
    patched = for_kernel(tree, cmdline=b"x", initrd=None)
    for name, data in {
        "bytes": b"\0\xff\x80\x7fA",
        "zero": b"\0",
        "zeros": bytes(4),
        "odd": b"ABC",
        "umlaut": b"\xc3\xa4\0",
        "latin": b"\xe4\0",
        "empty": b"",
        "text-with-nul-in-the-middle": b"a\0\0b\0",
    }.items():
        assert properties(patched)[("", name)] == data


def test_old_values_are_replaced() -> None:
    source = '/dts-v1/; / { chosen { bootargs = "old", "er"; linux,initrd-start = <1>; }; };'
    patched = for_kernel(dtc(source), cmdline=b"new", initrd=Range(0x10, 0x10))
    assert {name: data for (_, name), data in properties(patched).items()} == {
        "bootargs": b"new\0",
        "rng-seed": SEED,
        "linux,initrd-start": struct.pack(">Q", 0x10),
        "linux,initrd-end": struct.pack(">Q", 0x20),
    }


def test_stale_initrd_is_taken_out() -> None:
    """A tree that names an initrd of somebody else's would have the kernel take it for its own."""
    source = "/dts-v1/; / { chosen { linux,initrd-start = <1>; linux,initrd-end = <2>; }; };"
    patched = for_kernel(dtc(source), cmdline=b"new", initrd=None)
    assert set(properties(patched)) == {("/chosen", "bootargs"), ("/chosen", "rng-seed")}


def test_chosen_is_made_when_there_is_none() -> None:
    patched = for_kernel(dtc("/dts-v1/; / { };"), cmdline=b"new", initrd=None)
    assert properties(patched) == {
        ("/chosen", "bootargs"): b"new\0",
        ("/chosen", "rng-seed"): SEED,
    }


def test_chosen_has_one_name() -> None:
    tree = DeviceTree([Node(b"", 0), Node(b"chosen@0", 1, {b"other": b"kept"})])
    made = DeviceTree.parse(for_kernel(tree.to_bytes(), cmdline=b"quiet", initrd=None, label="l"))
    assert [node.name for node in made.nodes] == [b"", b"chosen"]
    assert made.chosen[b"bootargs"] == b"quiet\0" and made.chosen[b"other"] == b"kept"


def test_command_line_may_be_any_bytes(tree: bytes) -> None:
    patched = for_kernel(tree, cmdline=b'\xff "quoted" \\', initrd=None)
    assert properties(patched)[("/chosen", "bootargs")] == b'\xff "quoted" \\\0'


def test_nops_are_no_part_of_the_tree(tree: bytes) -> None:
    """What fdt_nop_property() and fdt_nop_node() of other programs leave behind."""
    header = list(struct.unpack(">10I", tree[:40]))
    start, size = header[2], header[9]
    nop = struct.pack(">I", 4)
    root, rest = tree[start : start + 8], tree[start + 8 : start + size]
    structure = root + nop * 3 + rest[:-8] + nop + rest[-8:]
    added = len(structure) - size
    header[1] += added
    header[3] += added
    header[9] += added
    blob = struct.pack(">10I", *header) + tree[40:start] + structure + tree[start + size :]
    assert decompiled(blob) == decompiled(tree)
    patched = for_kernel(blob, cmdline=b"x", initrd=None)
    assert patched == for_kernel(tree, cmdline=b"x", initrd=None)


@pytest.mark.parametrize("initrd", [None, Range(0x40000000, 1 << 40)])
@pytest.mark.parametrize("label", ["", "label"])
def test_size_is_known_before(tree: bytes, initrd: Range | None, label: str) -> None:
    patched = for_kernel(tree, cmdline=b"x", initrd=initrd, label=label)
    known = for_kernel(tree, cmdline=b"x", initrd=initrd and Range(0, 1), label=label)
    assert len(known) == len(patched)


def test_bytes_behind_the_tree_are_dropped(tree: bytes) -> None:
    patched = for_kernel(tree, cmdline=b"x", initrd=None)
    assert for_kernel(tree + bytes(1 << 20), cmdline=b"x", initrd=None) == patched


def test_tree_of_a_real_machine() -> None:
    real = device_tree(Machine.with_defaults("aarch64", memory=512 * MIB))
    assert real is not None
    patched = for_kernel(real, cmdline=b"quiet", initrd=Range(0x48000000, 0x1000), label="l")
    assert len(patched) < 64 << 10
    assert decompiled(patched) == changed(
        decompiled(real),
        ("kaslr-seed", "rng-seed"),
        [
            RNG_SEED,
            '\t\tbootargs = "quiet";',
            '\t\tbootproof,request = "l";',
            "\t\tlinux,initrd-end = <0x00 0x48001000>;",
            "\t\tlinux,initrd-start = <0x00 0x48000000>;",
        ],
    )


# --- broken trees ------------------------------------------------------------------------------


def refused(data: bytes) -> str:
    with pytest.raises(DeviceTreeError) as error:
        for_kernel(data, cmdline=b"x", initrd=None)
    assert str(error.value).isprintable()
    return str(error.value)


def test_no_device_tree(tree: bytes) -> None:
    assert refused(b"") == "too short for a device tree"
    assert refused(tree[:39]) == "too short for a device tree"
    assert refused(bytes(40)) == "no device tree"
    assert refused(tree[:-1]) == "the device tree is cut short"
    assert refused(b"\xed\xfe\x0d\xd0" + tree[4:]) == "no device tree"


def test_too_large_for_a_kernel() -> None:
    source = f"/dts-v1/; / {{ large = [{'00' * (2 * MIB)}]; }};"
    assert refused(dtc(source)) == "the device tree is too large"


@pytest.mark.parametrize("field", range(1, 10))
@pytest.mark.parametrize("value", [0, 1, 39, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF])
def test_any_value_in_a_header_field(tree: bytes, field: int, value: int) -> None:
    broken = bytearray(tree)
    struct.pack_into(">I", broken, 4 * field, value)
    survives(bytes(broken))


def with_field(tree: bytes, at: int, value: int) -> bytes:
    changed = bytearray(tree)
    struct.pack_into(">I", changed, at, value)
    return bytes(changed)


def test_blocks_end_where_the_header_says(tree: bytes) -> None:
    """As in libfdt: what is behind a block's size is not there, and a block ends in the tree."""
    strings, structure = struct.unpack_from(">2I", tree, 32)
    why = "the device tree cannot be read: "
    outside = f"{why}a part of it lies outside of its blocks"
    assert refused(with_field(tree, 36, 0)) == outside
    assert refused(with_field(tree, 36, structure - 4)) == outside
    assert "does not end in it" in refused(with_field(tree, 32, strings - 1))
    for field, name in ((32, "strings"), (36, "structure")):
        assert refused(with_field(tree, field, 0x10000)).startswith(f"{why}its {name} block, at 0x")
    older = with_field(with_field(tree, 20, 16), 36, 0)  # before 17 there is no such field
    assert DeviceTree.parse(older).nodes == DeviceTree.parse(tree).nodes


def survives(data: bytes) -> None:
    """Either a tree comes out, or the one error."""
    try:
        for_kernel(data, cmdline=b"x", initrd=Range(1, 2), label="l")
    except DeviceTreeError as error:
        assert str(error).isprintable()


TREE = dtc(SOURCE)
STRUCTURE = struct.unpack_from(">I", TREE, 8)[0]


@settings(max_examples=300)
@given(
    st.lists(
        st.tuples(st.integers(STRUCTURE, len(TREE) - 4), st.binary(min_size=1, max_size=4)),
        min_size=1,
        max_size=4,
    )
)
@example([(STRUCTURE, b"\0\0\0\2")])
@example([(STRUCTURE, b"\0\0\0\x09")])
@example([(STRUCTURE + 8, b"\0\0\0\1")])
def test_damaged_trees_are_refused_or_taken(changes: list[tuple[int, bytes]]) -> None:
    broken = bytearray(TREE)
    for offset, data in changes:
        broken[offset : offset + len(data)] = data
    survives(bytes(broken))


def test_nodes_without_end() -> None:
    """As deep as 2 MiB allow: no recursion may answer with a traceback."""
    depth = 100_000
    structure = struct.pack(">II", 1, 0) * depth + struct.pack(">I", 2) * depth
    structure += struct.pack(">I", 9)
    header = struct.pack(
        ">10I",
        0xD00DFEED,
        56 + len(structure),
        56,
        56 + len(structure),
        40,
        17,
        16,
        0,
        0,
        len(structure),
    )
    survives(header + bytes(16) + structure)


# --- an independent reader ---------------------------------------------------------------------


def properties(tree: bytes) -> dict[tuple[str, str], bytes]:
    """Every property by (path, name): chapter 5 of the specification, by hand."""
    _, _, structure, strings = struct.unpack_from(">4I", tree)
    found, path = {}, []
    while True:
        (token,) = struct.unpack_from(">I", tree, structure)
        structure += 4
        if token == 1:
            end = tree.index(b"\0", structure)
            path.append(tree[structure:end].decode())
            structure = end + 1 + -(end + 1) % 4
        elif token == 2:
            path.pop()
        elif token == 3:
            size, name_at = struct.unpack_from(">II", tree, structure)
            name = re.match(rb"[^\0]*", tree[strings + name_at :])
            assert name is not None
            data = tree[structure + 8 : structure + 8 + size]
            found[("/".join(path), name.group().decode())] = data
            structure += 8 + size + -size % 4
        elif token == 9:
            return found


def test_reading_agrees_with_the_independent_reader(tree: bytes) -> None:
    found: dict[tuple[str, str], bytes] = {}
    path: list[str] = []
    for node in DeviceTree.parse(tree).nodes:
        path[node.depth :] = [node.name.decode()]
        found |= {("/".join(path), n.decode()): data for n, data in node.properties.items()}
    assert found == properties(tree)
    assert DeviceTree.parse(tree).reservations == [(0x43000000, 0x100000), (0xFFFFFFFF << 32, 0x10)]


def test_values_as_text(tree: bytes) -> None:
    text = dict(DeviceTree.parse(tree).as_text())
    assert (text["/soc/serial@9000000"], "/soc/serial@1" in text) == ("present", False)
    names = ("compatible", "empty", "odd", "zeros", "zero")
    values = ['"one", "two", "three"', "", "41 42 43", "0x0", "00"]
    assert [text[f"/ {name}"] for name in names] == values
    assert text["/ text-with-nul-in-the-middle"] == "61 00 00 62 00"
    assert text["/soc/serial@9000000 reg"] == "0x0 0x9000000 0x0 0x1000"


# --- memory --------------------------------------------------------------------------------------


def test_memory_and_what_of_it_no_kernel_maps() -> None:
    two = {b"#address-cells": bytes([0, 0, 0, 2]), b"#size-cells": bytes([0, 0, 0, 1])}
    high = (1 << 32).to_bytes(8, "big") + (4096).to_bytes(4, "big")
    typed = {b"device_type": b"memory\0"}
    low = bytes(8) + (8192).to_bytes(4, "big")
    tree = DeviceTree(
        [
            Node(b"", 0, two),
            Node(b"ram@0", 1, {**typed, b"reg": high + low + bytes(12) + b"cut"}),
            Node(b"memory@1", 1, {**typed, b"reg": high, b"status": b"disabled\0"}),
            Node(b"memory-controller@2", 1, {b"reg": high}),
            Node(b"reserved-memory", 1, {**two, b"ranges": b""}),
            Node(b"firmware@0", 2, {b"reg": low, b"no-map": b""}),
            Node(b"off@0", 2, {b"reg": high, b"no-map": b"", b"status": b"disabled\0"}),
            Node(b"pool", 2, {b"size": bytes([0, 0, 16, 0]), b"no-map": b""}),
            Node(b"cma", 2, {b"size": bytes([0, 0, 32, 0])}),
            Node(b"ramoops@0", 2, {b"reg": high}),
            Node(b"chosen", 1, {}),
            Node(b"other@0", 2, {b"reg": high, b"no-map": b""}),
        ]
    )
    assert tree.memory == (Range(0, 8192), Range(1 << 32, 4096))
    assert tree.not_mapped == (Range(0, 8192),)
    assert tree.unplaced == (4096,)
    reserved = tree.child(b"reserved-memory")
    assert reserved is not None
    for wrong in ({**two}, {**two, b"ranges": b"", b"#size-cells": bytes([0, 0, 0, 2])}):
        reserved.properties = wrong
        assert not tree.not_mapped and not tree.unplaced
    assert DeviceTree([Node(b"", 0), Node(b"memory", 1, {**typed, b"reg": b"short"})]).memory == ()


def test_memory_that_is_to_be_used_of_a_node() -> None:
    one = {name: bytes([0, 0, 0, 1]) for name in (b"#address-cells", b"#size-cells")}
    node = {b"device_type": b"memory\0", b"reg": struct.pack(">2I", 0, 0x8000)}
    usable = {**node, b"linux,usable-memory": struct.pack(">4I", 0x1000, 0x1000, 0x4000, 0x1000)}
    none = {**node, b"linux,usable-memory": b""}
    for properties, ram in (
        (node, (Range(0, 0x8000),)),
        (usable, (Range(0x1000, 0x1000), Range(0x4000, 0x1000))),
        (none, ()),
    ):
        tree = DeviceTree([Node(b"", 0, one), Node(b"memory@0", 1, properties)])
        assert tree.memory == ram


def test_nodes_are_found_as_kernels_find_them() -> None:
    chosen = Node(b"chosen@0", 1, {b"bootargs": b"x\0"})
    tree = DeviceTree([Node(b"", 0), Node(b"chosen2", 1), chosen, Node(b"chosen", 1)])
    assert tree.child(b"chosen") is tree.child(b"chosen@0") is chosen
    assert tree.child(b"chosen@1") is None
    for name in (b"cpus", b"cpus@1"):
        tree.nodes += [Node(name, 1), Node(b"cpu" + name, 2), Node(b"cache", 3)]
    assert [node.name for node in tree.below(b"cpus")] == [b"cpucpus"]
    assert [node.name for node in tree.inside(tree.nodes[4])] == [b"cpucpus", b"cache"]


def test_the_root_of_the_interrupt_tree() -> None:
    """Of the first device that has interrupts, whatever is between the two (section 2.4)."""

    def handle(number: int) -> bytes:
        return struct.pack(">I", number)

    def at(address: int, **more: bytes) -> dict[bytes, bytes]:
        named = {key.replace("_", "-").encode(): of for key, of in more.items()}
        return {b"reg": struct.pack(">2I", address, 16), **named}

    one = {name: bytes([0, 0, 0, 1]) for name in (b"#address-cells", b"#size-cells")}
    gic = Node(b"gic", 2, at(0x800, phandle=handle(1)))
    gpio = Node(b"gpio", 2, at(0x900, phandle=handle(2), interrupt_parent=handle(1)))
    device = Node(b"button", 2, {b"interrupts": bytes(4), b"interrupt-parent": handle(2)})

    def found(root: dict[bytes, bytes], bus: dict[bytes, bytes], *nodes: Node) -> tuple[int, ...]:
        own = [Node(b"", 0, {**one, **root}), Node(b"soc", 1, {**one, **bus})]
        return DeviceTree([*own, *nodes]).interrupts

    identical = {b"ranges": b""}
    assert found({}, identical, gpio, device, gic) == (0x800,)
    assert found({b"interrupt-parent": handle(1)}, identical, gic) == (0x800,)
    inherits = Node(b"timer", 2, {b"interrupts": bytes(4)})
    assert found({}, {**identical, b"interrupt-parent": handle(1)}, inherits, gic) == (0x800,)
    assert found({}, identical, inherits, gic) == ()
    assert found({}, {b"ranges": bytes(12)}, gpio, device, gic) == ()
    assert found({}, {}, gpio, device, gic) == ()
    assert found({}, identical, gpio, device) == (0x900,)
    circle = Node(b"gic", 2, at(0x800, phandle=handle(1), interrupt_parent=handle(2)))
    assert found({}, identical, gpio, device, circle) in ((0x800,), (0x900,))
    old = Node(b"gic", 2, at(0x800, linux_phandle=handle(1)))
    old.properties[b"linux,phandle"] = old.properties.pop(b"linux-phandle")
    assert found({}, identical, gpio, device, old) == (0x800,)
