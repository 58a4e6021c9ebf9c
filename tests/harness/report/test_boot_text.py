"""What `boot` and `run` print of a boot, beside what whole boots show."""

from __future__ import annotations

import pytest

from bootproof.harness.guest.stages import Stage
from bootproof.harness.observation import Difference, Probe
from bootproof.harness.report.boot_text import print_probe, print_stages
from bootproof.loader.rules import Grade, RuleFinding
from tests.builders.guests import flat32


def test_stages_stand_in_columns_below_their_names(capsys: pytest.CaptureFixture[str]) -> None:
    print_stages(
        [
            Stage("entry", 55, None),
            Stage("banner", 192_490_746, 0.0),
            Stage("init", None, 10.15643),
            Stage("proof", 1_399_121_240, None),
        ]
    )
    assert capsys.readouterr().out.splitlines() == [
        "stages                     instructions   since the last    kernel clock",
        "stage     entry                      55",
        "stage     banner            192,490,746     +192,490,691      0.000000 s",
        "stage     init                  unknown                      10.156430 s",
        "stage     proof           1,399,121,240",
    ]


def test_a_boot_without_stages_has_no_columns(capsys: pytest.CaptureFixture[str]) -> None:
    print_stages([])
    assert capsys.readouterr().out == ""


AS_IT_SAYS = "entry     registers and RAM at the first instruction are as the boot image says"
NOT_AS = AS_IT_SAYS.replace(" are as ", " are not as ")
BROKEN = "entry     violation cpus: /cpus tells of 2, but the machine has 1 CPU"


@pytest.mark.parametrize(
    ("differs", "breaks", "lines"),
    [
        (False, False, [AS_IT_SAYS]),
        (False, True, [AS_IT_SAYS, BROKEN]),
        (True, False, [NOT_AS]),  # the verdict says how
        (True, True, [NOT_AS, "entry     rsi is 0x1, not 0x2; and 3 more", BROKEN]),
    ],
)
def test_a_broken_rule_is_no_difference(
    differs: bool, breaks: bool, lines: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    """A hand-over may be exactly what was asked for, and that forbidden."""
    different = (Difference("rsi", "0x2", "0x1"),) if differs else ()
    rule = RuleFinding(
        Grade.VIOLATION, "cpus", "/cpus tells of 2, but the machine has 1 CPU", "section"
    )
    findings = (rule,) if breaks else ()
    print_probe(Probe(flat32(0), "", different, 3 if differs else 0, findings))
    assert capsys.readouterr().out.splitlines() == lines
