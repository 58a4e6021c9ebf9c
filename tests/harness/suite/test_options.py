"""What a session is told travels as words, whole, to every process of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from bootproof.harness.cases.shard import Shard
from bootproof.harness.errors import UserError
from bootproof.harness.suite import options
from bootproof.harness.suite.options import OPTION, Keep, MatrixOptions

ALL = MatrixOptions(
    out=Path("/a b/=out"),
    keep=Keep.FAILED,
    only=("offset=none", "kernel=6.1-*"),
    shard=Shard(1, 4),
    costs=Path("costs.json"),
    qemu=("old=/opt/a=b",),
    list_only=True,
    baseline=Path("b.json"),
    threshold=0.1 + 0.2,
    jobs=3,
    lines=True,
    quiet=True,
    ktap=True,
    command="./bootproof matrix --cmdline 'a\nb'",
)


@pytest.mark.parametrize("told", [ALL, MatrixOptions()], ids=["all", "nothing"])
def test_what_was_told_arrives(told: MatrixOptions) -> None:
    words = [word.removeprefix(f"{OPTION}=") for word in told.words()]
    assert options.read(words) == told
    assert len(words) == (15 if told is ALL else 0)


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("ot=x", "--bootproof: unknown key 'ot'; did you mean 'out'?"),
        ("keep=none", "--bootproof: keep: 'none' is not a valid Keep"),
        ("quiet=yes", "--bootproof: quiet: must be true or false, not 'yes'"),
        ("shard=4/3", "--bootproof: shard: '4/3' is no shard; write it like 1/4: the first of"),
        ("jobs=many", "--bootproof: jobs: invalid literal"),
    ],
)
def test_what_is_wrong_is_one_line(word: str, said: str) -> None:
    with pytest.raises(UserError) as caught:
        options.read([word])
    assert str(caught.value).startswith(said)
