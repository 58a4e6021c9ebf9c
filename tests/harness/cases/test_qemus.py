"""QEMUs by name: what a user gives, and what cases ask for."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bootproof.harness.case import Case
from bootproof.harness.cases import qemus
from bootproof.harness.errors import UserError

PVH = Case("x86_64", "6.1", "elf", "pvh")


def test_qemus_by_name() -> None:
    case = replace(PVH, qemu="old")
    assert qemus.paths(["old=/a=b", "new=c"]) == {"old": "/a=b", "new": "c"}
    assert qemus.axis([PVH, case], ["old=/a"]) == []
    assert qemus.axis([PVH, case], ["old=/a", "new=/b"]) == ["new"]
    assert qemus.axis([PVH], ["old=/a", "new=/b"]) == ["old", "new"]
    with pytest.raises(UserError, match=r"-old: needs a QEMU; name it with --qemu old=PATH$"):
        qemus.axis([PVH, case], ["new=/a"])
    with pytest.raises(UserError, match=r"^--qemu new=…: no case runs on it: each names another"):
        qemus.axis([case], ["old=/a", "new=/b"])


@pytest.mark.parametrize(
    ("word", "right"),
    [
        ("/opt/q10", "mine=/opt/q10"),
        ("=/opt/q10", "mine=/opt/q10"),
        ("../old=/opt/q10", "mine=/opt/q10"),
        ("old=", "old=/opt/bin/qemu-system-…"),
        ("old", "old=/opt/bin/qemu-system-…"),
        ("", "old=/opt/bin/qemu-system-…"),
    ],
)
def test_what_names_no_qemu(word: str, right: str) -> None:
    """How to write it instead is said, and is right."""
    with pytest.raises(UserError) as caught:
        qemus.paths([word])
    assert str(caught.value).startswith(f"{word!r} is no NAME=PATH: ")
    assert str(caught.value).endswith(f"; write it like {right!r}")
    assert len(qemus.paths([right])) == 1


def test_two_qemus_with_one_name() -> None:
    with pytest.raises(UserError, match="two QEMUs are called 'a'"):
        qemus.paths(["a=/b", "a=/c"])
