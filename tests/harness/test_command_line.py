"""What a user's kernel command line becomes, and what is refused because it cannot be right."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bootproof.harness import command_line
from bootproof.harness.command_line import complete, names_our_init, next_init, problem
from bootproof.loader import kernelargs

OURS = "rdinit=/bootproof/init bootproof.nonce=11"


@pytest.mark.parametrize(
    ("chosen", "following", "wanted"),
    [
        ("quiet", None, f"quiet {OURS}"),
        ("", None, OURS),
        ("quiet", "/init", f"quiet {OURS} bootproof.next=/init"),
        ("  a  b\t", None, f"a  b {OURS}"),
        # What follows the dashes is for init, which is ours.
        ("quiet -- single", None, f"quiet {OURS} -- single"),
        ("-- single", "/init", f"{OURS} bootproof.next=/init -- single"),
        ("quiet --", None, f"quiet {OURS} --"),
        ("a --b c-- d=-- -- e -- f", None, f"a --b c-- d=-- {OURS} -- e -- f"),
        # In quotes they are a part of a value.
        ('foo="a -- b" c', None, f'foo="a -- b" c {OURS}'),
        ('foo="a -- b" -- c', None, f'foo="a -- b" {OURS} -- c'),
        ('"--" a', None, f'{OURS} "--" a'),
        ("ü -- à", None, f"ü {OURS} -- à"),
    ],
)
def test_where_our_words_go(chosen: str, following: str | None, wanted: str) -> None:
    assert complete(chosen, "11", following) == wanted


@given(st.text(alphabet='ab="- à\t'))
def test_whatever_is_not_refused_still_means_the_same_with_our_words_in_it(text: str) -> None:
    if problem(text, initrd=False) is not None:
        return
    line = complete(text, "11", None)
    users = [(a.name, a.value) for a in kernelargs.for_kernel(text.encode())]
    ours = [(b"rdinit", b"/bootproof/init"), (b"bootproof.nonce", b"11")]
    found = kernelargs.for_kernel(line.encode())
    assert [(a.name, a.value) for a in found] == [*users, *ours]
    assert names_our_init(line)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ('quiet foo="bar', "has a quote that is never closed: '\"bar'"),
        ('"', "has a quote that is never closed: '\"'"),
        ('a="b c" d" e', "has a quote that is never closed: '\" e'"),
        ("panic=-1\nquiet", "has '\\n' after 'panic=-1': a kernel's command line is a single line"),
        ("a\rb", "has '\\r' after 'a'"),
        ("a\0b", "has '\\x00' after 'a'"),
        (
            "quiet -- bootproof.nonce=abc",
            "has bootproof.nonce=, which is bootproof's own: leave it out",
        ),
        ("bootproof.next=/init", "has bootproof.next=, which is bootproof's own: leave it out"),
        ("bootproof.then=/init", "has bootproof.then=, which is bootproof's own: leave it out"),
        ('"bootproof.nonce=1"', "has bootproof.nonce=, which is bootproof's own: leave it out"),
    ],
)
def test_line_that_cannot_be_right(text: str, why: str) -> None:
    for initrd in (False, True):
        found = problem(text, initrd=initrd)
        assert found is not None and found.startswith(why) and found.isprintable()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "quiet\n",
        '\tfoo="a b"',
        'a -- "b',
        "xbootproof.nonce=1",
        "foo=bootproof.nonce=1",
        "a\x0bb",
    ],
)
def test_line_that_is_only_strange(text: str) -> None:
    assert problem(text, initrd=False) is None


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("quiet", "/init"),
        ("rdinit=/sbin/my quiet", "/sbin/my"),
        ("rdinit=/a rdinit=/b", "/b"),
        ('rdinit="/a"', "/a"),
        # For the /init of an initrd, which looks at /proc/cmdline for it.
        ("init=/bin/sh", "/init"),
        ("rdinit=/bootproof/init", "/init"),
        ("quiet -- rdinit=/a", "/init"),
        ('foo="rdinit=/a"', "/init"),
    ],
)
def test_what_runs_after_the_proof_with_an_initrd(text: str, wanted: str) -> None:
    for shell in (None, command_line.SHELL):
        assert next_init(text, has_init=True, shell=shell) == wanted


def test_what_runs_after_the_proof_without_an_init() -> None:
    assert next_init("quiet", has_init=False) is None
    assert next_init("quiet", has_init=False, shell=command_line.SHELL) == command_line.SHELL
    assert next_init("rdinit=/a", has_init=False, shell=command_line.SHELL) == "/a"


@pytest.mark.parametrize("name", ["rdinit", "init"])
def test_init_of_the_users_that_nothing_would_run(name: str) -> None:
    assert problem(f"quiet {name}=/bin/sh", initrd=True) is None
    assert problem(f"quiet {name}=/bin/sh", initrd=False) == (
        f"has {name}='/bin/sh', which would not be run: without an initrd there is nothing in the"
        f" guest but the proof; give one (--initrd), and it runs after the proof, or leave {name}="
        " out"
    )


def test_init_with_a_blank_in_its_name() -> None:
    found = problem('rdinit="/a b"', initrd=True)
    assert found == "has rdinit='/a b': no program with blanks in its name is run"


@pytest.mark.parametrize(
    ("text", "more", "wanted"),
    [
        ("console=ttyS0", None, "console=ttyS0"),
        ("console=ttyS0", "quiet a=b", "console=ttyS0 quiet a=b"),
        ("console=ttyS0 -- 5", " quiet ", "console=ttyS0 quiet -- 5"),
        ("", "quiet", "quiet"),
    ],
)
def test_words_are_added_where_the_kernel_reads_them(
    text: str, more: str | None, wanted: str
) -> None:
    assert command_line.appended(text, more) == wanted
