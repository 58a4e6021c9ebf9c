"""Scenario files: what a claim expands to, and the one clear line for everything wrong in one."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bootproof.harness.case import Case, Expectation
from bootproof.harness.cases.kernels import default_kernels
from bootproof.harness.cases.scenarios import (
    AXES,
    CLAIM_KEYS,
    EXCEPTION_KEYS,
    MOST_BYTES,
    Claimed,
    expand,
    read_scenarios,
)
from bootproof.harness.errors import UserError
from bootproof.harness.terms import Placement
from bootproof.harness.verdict import Verdict
from bootproof.kernels.catalog import load_catalog
from bootproof.loader.address import GIB, MIB
from bootproof.loader.result import PvhState
from tests import ROOT

X86 = default_kernels("x86_64")
HEAD = '[defaults]\narch = "x86_64"\nkernel = "6.1-cloud-amd64"\n\n'
CLAIM = HEAD + '[[claim]]\nname = "one"\nwhy = "because"\nformat = "elf"\nprotocol = "linux64"\n'


def read(directory: Path, text: str) -> list[Claimed]:
    path = directory / "my.toml"
    path.write_text(text)
    return read_scenarios(path)


def problem(directory: Path, text: str) -> str:
    """The error of a file, without the directory."""
    with pytest.raises(UserError) as caught:
        read(directory, text)
    message = str(caught.value)
    assert "\n" not in message
    return message.removeprefix(f"{directory}/")


# --- what a claim means ------------------------------------------------------------------------


def test_a_claim_is_every_combination_of_its_axes(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        '[[claim]]\nname = "all"\nwhy = "it boots"\narch = "x86_64"\nkernel = "default"\n'
        'format = "bzimage"\nprotocol = ["linux64", "linux32"]\noffset = ["none", "16M", 0]\n'
        'memory = "1G"\nmachine = "pc"\nplacement = "mapped"\nexpect = { pvh = "ignored" }\n',
    )
    expect = Expectation(pvh=PvhState.IGNORED, why="it boots")
    assert [claimed.case for claimed in found] == [
        Case(
            *("x86_64", kernel, "bzimage", protocol, offset, GIB, "pc"),
            placement=Placement.MAPPED,
            expect=expect,
        )
        for kernel in X86
        for protocol in ("linux64", "linux32")
        for offset in (None, 16 * MIB, 0)
    ]
    assert {(claimed.claim, claimed.why, claimed.line) for claimed in found} == {
        ("all", "it boots", 1)
    }


@pytest.mark.parametrize(
    ("axis", "words"),
    [
        ('memory = ["128M", "1G"]', ["linux64-memory_128M", "linux64-memory_1G"]),
        ('append = ["a b", "a=\\"c/d\\""]', ["linux64-append_a_b", "linux64-append_a__c_d_"]),
        ('init = ["init", "init-exits"]', ["linux64-init_init", "linux64-init_init-exits"]),
        (
            'label = "x"\nprotocol = ["linux64", "pvh"]\ncpu = ["a", "b"]',
            [f"x-protocol_{protocol}-cpu_{cpu}" for protocol in ("linux64", "pvh") for cpu in "ab"],
        ),
        ('label = ["x", "y"]\nmemory = ["1G"]', ["x", "y"]),
    ],
)
def test_an_id_tells_the_values_of_a_list(axis: str, words: list[str], tmp_path: Path) -> None:
    claim = CLAIM.replace('protocol = "linux64"\n', "") if "protocol" in axis else CLAIM
    ids = [claimed.case.id for claimed in read(tmp_path, claim + axis)]
    assert ids == [f"x86_64-6.1-cloud-amd64-elf-{word}-none" for word in words]


@pytest.mark.parametrize(
    ("key", "values"),
    [
        *(("protocol", ("linux64", "pvh")), ("label", ("x", "y")), ("offset", ("none", "16M"))),
        *(("machine", ("q35", "pc")), ("placement", ("devices", "mapped")), ("smp", (1, 2))),
        *(("virtual_offset", ("16M", "32M")), ("kaslr_seed", (1, 2)), ("qemu", ("old", "new"))),
        *(("profile", ("default", "fast")), ("unsafe", (False, True)), ("probe", (False, True))),
        ("realtime", (False, True)),
    ],
)
def test_what_an_id_has_already_is_not_told_twice(
    key: str, values: tuple[object, ...], tmp_path: Path
) -> None:
    claim = CLAIM.replace('protocol = "linux64"\n', "") if key == "protocol" else CLAIM
    found = [c.case for c in read(tmp_path, f"{claim}{key} = {json.dumps(values)}")]
    assert len({case.id for case in found}) == 2
    assert not [case for case in found if f"{key}_" in case.id]


def test_an_id_that_is_too_long_for_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "k").write_bytes(b"kernel")
    claim = CLAIM.replace("6.1-cloud-amd64", f"{'k' * 80}=./k") + f'label = "{"l" * 80}"\n'
    axes = f'qemu = "{"q" * 60}"\nmemory = ["128M", "1G"]\n'
    assert problem(tmp_path, claim + axes).startswith(
        "my.toml:5: claim 'one': an id of 250 characters is longer than 240: shorten its label or"
    )


def test_defaults_are_of_every_claim_unless_it_says_otherwise(tmp_path: Path) -> None:
    other = (
        '[[claim]]\nname = "two"\nwhy = "w"\nformat = "elf"\nprotocol = "pvh"\nkernel = "6.12-*"'
    )
    found = read(tmp_path, CLAIM + other)
    assert [claimed.case.kernel for claimed in found] == ["6.1-cloud-amd64", "6.12-cloud-amd64"]


def test_offsets_count_from_the_start_of_ram_of_each_architecture(tmp_path: Path) -> None:
    text = (
        '[[claim]]\nname = "a"\nwhy = "w"\narch = "aarch64"\nkernel = "6.1-cloud-arm64"\n'
        'format = "image"\nprotocol = "arm64"\noffset = ["ram+0", "ram+2M", "1088M"]\n'
    )
    found = read(tmp_path, text)
    assert [c.case.offset for c in found] == [GIB, GIB + 2 * MIB, GIB + 64 * MIB]


def test_offsets_count_from_the_start_of_ram_of_each_board(tmp_path: Path) -> None:
    text = (
        '[[claim]]\nname = "a"\nwhy = "w"\narch = "aarch64"\nkernel = "6.1-cloud-arm64"\n'
        'format = "image"\nprotocol = "arm64"\noffset = ["ram+2M", "none"]\n'
        'machine = ["xlnx-zcu102", "virt"]\n'
    )
    found = [(c.case.offset, c.case.board) for c in read(tmp_path, text)]
    assert found == [
        (2 * MIB, "xlnx-zcu102"),
        (GIB + 2 * MIB, "virt"),
        (None, "xlnx-zcu102"),
        (None, "virt"),
    ]
    one = text.replace('["xlnx-zcu102", "virt"]', '"xlnx-zcu102"')
    exception = '[[claim.except]]\nwhen = { offset = "ram+2M" }\nmemory = "1G"\nreason = "r"\n'
    assert [c.case.memory for c in read(tmp_path, one + exception)] == [GIB, 512 * MIB]


@pytest.mark.parametrize(
    ("kernels", "names"),
    [
        ('"default"', X86),
        ('"6.1*"', ["6.1-cloud-amd64", "6.12-cloud-amd64"]),
        ('["default", "!6.1-*"]', [name for name in X86 if not name.startswith("6.1-")]),
        ('["newest-*", "6.1-cloud-amd64", "default"]', [X86[2], X86[0], X86[1]]),
        ('"6.1-amd64"', ["6.1-amd64"]),
    ],
)
def test_kernels_by_set_name_and_pattern(kernels: str, names: list[str], tmp_path: Path) -> None:
    found = read(tmp_path, CLAIM + f"kernel = {kernels}")
    assert [claimed.case.kernel for claimed in found] == names


def test_kernel_file_beside_the_scenario_file(tmp_path: Path) -> None:
    """Its id is the same wherever the directory is."""
    case = read(tmp_path, CLAIM + 'kernel = "./images/vmlinux"')[0].case
    assert (case.kernel, case.kernel_path) == ("images/vmlinux", f"{tmp_path}/images/vmlinux")
    assert case.id == "x86_64-images_vmlinux-elf-linux64-none"


def test_a_build_directory_and_a_url_are_kernels_too(tmp_path: Path) -> None:
    """As on the command line; nothing is fetched here."""
    built = tmp_path / "linux" / "arch" / "x86" / "boot" / "bzImage"
    built.parent.mkdir(parents=True)
    built.write_bytes(b"x")
    url = f"https://kernels.example/v6.1/bzImage#sha256={'0' * 64}"
    found = read(tmp_path, CLAIM + f'kernel = ["./linux", "./linux.deb", "{url}"]\n')
    assert [(claimed.case.kernel, claimed.case.kernel_path) for claimed in found] == [
        ("linux", str(built)),
        ("linux.deb", f"{tmp_path}/linux.deb"),
        ("bzImage", url),
    ]
    named = read(tmp_path, CLAIM + f'kernel = ["mine=./linux", "theirs={url}", "!mine=./linux"]\n')
    assert [(c.case.kernel, c.case.kernel_path, c.case.kernel_role) for c in named] == [
        ("theirs", url, None)
    ]


def test_a_file_has_a_role_where_it_has_no_name(tmp_path: Path) -> None:
    words = '["./vmlinuz-6.1.0-48-amd64", "mine=./vmlinuz-6.1.0-48-amd64", "6.1-amd64"]'
    found = read(tmp_path, CLAIM + f"kernel = {words}\n")
    assert [claimed.case.kernel_role for claimed in found] == ["vmlinuz-*-amd64", None, None]


@pytest.mark.parametrize(
    ("kernel", "said"),
    [
        ('["a=./x", "a=./y"]', "two different ones are called 'a'"),
        ('["6.1-amd64", "6.1-amd64=./x"]', "two different ones are called '6.1-amd64'"),
        ('"a=6.1-amd64"', "'a=6.1-amd64' gives a name to what is no path and no URL"),
        ('"a=../x"', "'../x' is not below the directory of this file"),
    ],
)
def test_names_that_are_none(kernel: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=re.escape(said)):
        read(tmp_path, CLAIM + f"kernel = {kernel}\n")


def test_paths_that_lead_nowhere(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to("loop")
    assert read(tmp_path, CLAIM + 'kernel = "./loop"')[0].case.kernel == "loop"
    long = CLAIM + f'kernel = "./{"x" * 300}"\n'
    assert problem(tmp_path, long) == "my.toml:10: claim 'one': kernel: File name too long"


def test_a_kernel_of_the_catalogue_is_never_a_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "6.1-amd64").write_bytes(b"x")
    case = read(tmp_path, CLAIM + 'kernel = "6.1-amd64"\n')[0].case
    assert (case.kernel, case.kernel_path) == ("6.1-amd64", None)


WIDE = CLAIM + 'kernel = "default"\noffset = ["none", "2M", "16M"]\nexpect = { pvh = "ignored" }\n'


def test_an_exception_changes_what_is_expected_and_says_why(tmp_path: Path) -> None:
    found = read(
        tmp_path,
        WIDE + '[[claim.except]]\nwhen = { offset = "none" }\nexpect = { pvh = "present" }\n'
        'reason = "no offset"\n'
        '[[claim.except]]\nwhen = { kernel = "6.1-*", offset = ["2M", "16M"] }\nunsafe = true\n'
        'memory = "1G"\nexpect = { verdict = "silent" }\nreason = "old"\n',
    )
    expected = {
        claimed.case.id: claimed.case.expect
        for claimed in found
        if claimed.case.kernel.startswith("6.1-")
    }
    start = "x86_64-6.1-cloud-amd64-elf-linux64"
    old = Expectation(Verdict.SILENT, why="old")  # nothing of what a booted kernel must show
    assert expected == {
        f"{start}-none": Expectation(pvh=PvhState.PRESENT, why="no offset"),
        f"{start}-+2M-unsafe": old,
        f"{start}-+16M-unsafe": old,
    }
    assert {c.case.memory for c in found if c.case.unsafe} == {GIB}
    assert len(found) == 3 * len(X86)


def test_an_exception_can_leave_cases_out(tmp_path: Path) -> None:
    text = WIDE + '[[claim.except]]\nwhen = { offset = "2M" }\nomit = true\nreason = "r"\n'
    assert {claimed.case.offset for claimed in read(tmp_path, text)} == {None, 16 * MIB}


def test_short_marks_some_cases(tmp_path: Path) -> None:
    found = read(tmp_path, WIDE + 'short = { kernel = "6.1-*", offset = "none" }')
    assert [c.case.id for c in found if c.short] == ["x86_64-6.1-cloud-amd64-elf-linux64-none"]


# --- what is wrong with a file -------------------------------------------------------------------

EXCEPT = CLAIM + '[[claim.except]]\nwhen = { protocol = "linux64" }\nreason = "r"\n'
SECOND = '[[claim]]\nname = "two"\nwhy = "w"\nformat = "elf"\nprotocol = "linux64"\n'


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[[claim", "my.toml: is no TOML: "),
        ("x = " + "[" * 100_000, "my.toml: is no TOML: "),
        ("", "my.toml: has no [[claim]]"),
        ("claim = 7", "my.toml: has no [[claim]]"),
        ('\nclam = "x"', "my.toml:2: unknown key 'clam'; did you mean 'claim'?"),
        ("[defaults]\nmemroy = 1", "my.toml:2: defaults: unknown key 'memroy'; did you mean 'mem"),
        ('defaults = "x"', "my.toml:1: defaults: must be a table, not the text 'x'"),
        ("claim = [1]", "my.toml:1: must be a table, not the number 1"),
        (
            CLAIM + 'protcol = "pvh"',
            "10: claim 'one': unknown key 'protcol'; did you mean 'proto",
        ),
        (CLAIM + "unsafe = 1", "10: claim 'one': unsafe: must be true or false, not the number 1"),
        (CLAIM + 'memory = "1Q"', "10: claim 'one': memory: '1Q' is neither a size nor an addr"),
        (
            CLAIM + "offset = []",
            "10: claim 'one': offset: is an empty list: the claim would have no case",
        ),
        (
            CLAIM + 'offset = [\n  "none",\n  "16N",\n]',
            "12: claim 'one': offset: '16N' is neither a size nor an address",
        ),
        (CLAIM + 'kernel = "6.1-clod-amd64"', "10: claim 'one': unknown kernel '6.1-clod-amd64'; "),
        (
            CLAIM + 'kernel = "6.1-cloud-arm64"',
            "10: claim 'one': kernel '6.1-cloud-arm64' is of a",
        ),
        (CLAIM + 'kernel = "5.*"', "10: claim 'one': kernel: '5.*' matches none of 6.1-cloud"),
        (CLAIM + 'expect = { verdit = "x" }', "10: claim 'one': expect: unknown key 'verdit'; did"),
        (CLAIM + 'expect = { verdict = "bootet" }', "10: claim 'one': expect.verdict: unknown val"),
        (CLAIM + 'expect = { why = "x" }', "10: claim 'one': expect: unknown key 'why'; "),
        (CLAIM + 'name = "x y"', "my.toml: is no TOML: "),
        (CLAIM.replace('"one"', '"x y"'), "6: claim 'x y': 'x y' must be of letters, digits and"),
        (CLAIM.replace('name = "one"\n', ""), "5: the key 'name' is missing"),
        (CLAIM.replace('"because"', '" "'), "7: claim 'one': the key 'why' must be a text"),
        (CLAIM.replace('format = "elf"\n', ""), "5: claim 'one': the key 'format' is missing"),
        (CLAIM + SECOND.replace("two", "one"), "11: claim 'one': another claim is called 'one'"),
        (
            CLAIM + SECOND,
            "10: claim 'two': x86_64-6.1-cloud-amd64-elf-linux64-none is also a case of claim",
        ),
        # exceptions
        (EXCEPT, "10: claim 'one': the exception changes nothing"),
        (EXCEPT + 'unsaef = "x"', "13: claim 'one': unknown key 'unsaef'; did you mean 'unsafe'?"),
        (
            EXCEPT.replace('reason = "r"', "omit = true"),
            "10: claim 'one': an exception needs a `reason`",
        ),
        (
            EXCEPT.replace("when", "# when") + "omit = true",
            "10: claim 'one': an exception needs `when`: which cases it is for",
        ),
        (
            EXCEPT.replace('linux64" }', 'linux32" }') + "omit = true",
            "11: claim 'one': matches no case of the claim",
        ),
        (
            EXCEPT + "omit = true",
            "5: claim 'one': has no case: its kernels and exceptions leave no",
        ),
        (
            CLAIM.replace('"6.1-cloud-amd64"', '["default", "!*-amd64"]'),
            "5: claim 'one': has no case: its kernels and exceptions leave none",
        ),
        (
            CLAIM + 'expect = { verdict = "interrupted" }',
            "10: claim 'one': expect: no case can expect interrupted: it says nothing of a guest",
        ),
        (EXCEPT.replace("{ protocol", "{ protcol"), "11: claim 'one': when: unknown key 'protcol'"),
        (EXCEPT + 'kernel = "x"', "10: claim 'one': an exception cannot change the kernel"),
        (CLAIM + 'short = { offset = "1M" }', "10: claim 'one': matches no case of the claim"),
        (CLAIM + "except = 1", "10: claim 'one': except: must be [[claim.except]], not the numbe"),
        # what cannot be built
        (
            CLAIM.replace("linux64", "arm64"),
            "9: claim 'one': protocol: arm64 is of aarch64, not of x86_64",
        ),
        (CLAIM + 'machine = "virt"', "10: claim 'one': machine: virt is not of x86_64; known ther"),
        (CLAIM + 'memory = "4K"', "10: claim 'one': memory: 4K is not a whole number of MiB from"),
        (
            CLAIM + 'accel = "kvm"',
            "10: claim 'one': accel: kvm counts no guest instructions, and no",
        ),
        (CLAIM + "smp = 999", "10: claim 'one': smp: 999 CPUs are more than the "),
        (CLAIM + 'cmdline = "a"\nprofile = "fast"', "11: claim 'one': profile: is one of our own"),
        (CLAIM + "cmdline = 'a=\"b'", "10: claim 'one': cmdline: has a quote that is never closed"),
        (CLAIM + "pvh_relocate = true", "10: claim 'one': pvh_relocate: needs an offset, and the"),
        (CLAIM + 'expect = { code = "X" }', "10: claim 'one': expect: a code is of load-refused"),
        (EXCEPT + 'machine = "virt"', "13: claim 'one': machine: virt is not of x86_64"),
        (
            CLAIM + f"memory = {['1M'] * 200}\noffset = {['1M'] * 200}",
            "5: claim 'one': 40000 combinations in this file are more than 10000",
        ),
    ],
)
def test_one_clear_line(text: str, said: str, tmp_path: Path) -> None:
    assert problem(tmp_path, text).startswith(said if said.startswith("my") else f"my.toml:{said}")


@pytest.mark.parametrize(
    "change",
    [
        'kernel = "/etc/passwd"',
        'kernel = "../vmlinux"',
        'kernel = "./link/vmlinux"',
        'kernel = "./images/../../vmlinux"',
        'kernel = "./linux"',
        'kernel = "https://kernels.example/bzImage"',
        'kernel_path = "/etc/passwd"',
        'qemu = "/tmp/evil"',
        'init = "../../../../etc/passwd"',
        'variant = "__import__"',
        'format = "../elf"',
        'machine = "q35,accel=kvm"',
        'cmdline = "a\\nb"',
        'command = "id"',
        'name = "$(id)"',
        'label = "../../escaped"',
    ],
)
def test_a_file_of_a_stranger_reaches_nothing(change: str, tmp_path: Path) -> None:
    """Neither programs nor files outside of its directory can be named; ids are plain names."""
    (tmp_path / "my").mkdir()
    (tmp_path / "my" / "link").symlink_to("/etc")
    (tmp_path / "my" / "linux").mkdir()
    (tmp_path / "my" / "linux" / "vmlinux").symlink_to("/etc/passwd")
    text = CLAIM.replace('name = "one"\n', "") if change.startswith("name") else CLAIM
    key = change.partition(" ")[0]
    lines = [line for line in text.splitlines() if not line.startswith(f"{key} ")]
    assert problem(tmp_path / "my", "\n".join([*lines, change])).startswith("my.toml:")


def test_a_file_that_is_none(tmp_path: Path) -> None:
    path = tmp_path / "my.toml"
    with pytest.raises(UserError, match=r"my\.toml: No such file or directory$"):
        read_scenarios(path)
    path.mkdir()
    with pytest.raises(UserError, match=r"my\.toml: Is a directory$"):
        read_scenarios(path)


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"#" * (MOST_BYTES + 1), "has 1048577 bytes, and more than 1 MiB are not read"),
        (b"a = '\xff'", "byte 5 is not UTF-8"),
    ],
)
def test_a_file_that_cannot_be_text(data: bytes, said: str, tmp_path: Path) -> None:
    path = tmp_path / "my.toml"
    path.write_bytes(data)
    with pytest.raises(UserError) as caught:
        read_scenarios(path)
    assert str(caught.value) == f"{path}: {said}"


# --- the default matrix --------------------------------------------------------------------------


def test_the_default_matrix_is_what_it_was() -> None:
    """Every claim of the matrix is there for every kernel, and `bootproof test` has its four."""
    found = [
        claimed
        for path in sorted((ROOT / "scenarios").glob("*.toml"))
        for claimed in read_scenarios(path)
    ]
    ids = [claimed.case.id for claimed in found]
    assert len(ids) == len(set(ids)) >= 154
    assert {
        "x86_64-6.1-cloud-amd64-elf-pvh-+16M-relocate-unsafe-fast",
        "x86_64-newest-cloud-amd64-elf-pvh-+1G-relocate",
        "x86_64-6.12-cloud-amd64-elf-linux64-none-pc-fast",
        "x86_64-newest-cloud-amd64-elf-pvh-none-microvm-smp4-fast",
        "aarch64-6.1-cloud-arm64-image-arm64-ram+2M-smp4-fast",
        "x86_64-6.1-cloud-amd64-bzimage-linux64-kaslr-none",
        "aarch64-newest-cloud-arm64-image-arm64-ram+2M-mapped-fast",
    } <= set(ids)
    assert {
        "x86_64-6.1-cloud-amd64-elf-linux64-none",
        "x86_64-6.1-cloud-amd64-elf-pvh-none",
        "x86_64-6.1-cloud-amd64-bzimage-linux32-at32M-fast",
        "aarch64-6.1-cloud-arm64-image-arm64-ram+0",
    } <= {claimed.case.id for claimed in found if claimed.short}
    assert all(claimed.case.expect.why for claimed in found)
    booted = [claimed.case for claimed in found if claimed.case.expect.verdict is Verdict.BOOTED]
    plain = {(c.kernel, c.format) for c in booted if (c.cmdline, c.profile) == (None, "default")}
    assert plain == {(case.kernel, case.format) for case in booted}


# --- any document at all -------------------------------------------------------------------------

KEYS = sorted({*AXES, *CLAIM_KEYS, *EXCEPTION_KEYS, "defaults", "claim", "protcol"})
WORDS = [
    "none",
    "booted",
    "16M",
    "ram+2M",
    "linux64",
    "x86_64",
    "default",
    "6.1-*",
    "!x",
    "./a",
    "elf",
]
VALUES = (
    st.sampled_from(
        [*WORDS, "booted", "pc", "", "\x1b[2J", "true", 0, -1, 7, True, 1.5, float("nan")]
    )
    | st.dates()
    | st.text(max_size=3)
)
ANYTHING = st.recursive(
    VALUES,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4)
    ),
    max_leaves=12,
)
GOOD = {"name": "n", "why": "w", "arch": "x86_64", "kernel": "default"}
GOOD |= {"format": "elf", "protocol": "linux64"}


@settings(deadline=None, max_examples=300)
@given(st.dictionaries(st.sampled_from(KEYS), ANYTHING, max_size=5), ANYTHING)
def test_any_claim_is_cases_or_one_clear_line(changes: dict[str, object], defaults: object) -> None:
    document = {"defaults": defaults if isinstance(defaults, dict) else {}}
    for data in (document | {"claim": [GOOD | changes]}, {"claim": changes}, changes):
        try:
            found = expand(Path("/d/my.toml"), data, {}, load_catalog())
        except UserError as error:
            assert str(error).isprintable() and str(error).startswith("/d/my.toml:")
        else:
            assert found
