"""What `boot` and `run` print of a boot, beside what whole boots show."""

from __future__ import annotations

import pytest

from bootproof.harness.guest.stages import Stage
from bootproof.harness.report.boot_text import print_stages


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
