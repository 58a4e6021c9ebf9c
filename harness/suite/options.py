"""The names that the pytest plugin and the commands over it agree on; costs nothing to import."""

from __future__ import annotations

from typing import Final

from bootproof.harness import places

OUT_OPTION: Final = "--bootproof-out"
KEEP_OPTION: Final = "--bootproof-keep"
LINES_OPTION: Final = "--bootproof-lines"
COMMAND_OPTION: Final = "--bootproof-command"
LIST_OPTION: Final = "--bootproof-list"
ONLY_OPTION: Final = "--bootproof-only"
SHARD_OPTION: Final = "--bootproof-shard"
COSTS_OPTION: Final = "--bootproof-costs"
QEMU_OPTION: Final = "--bootproof-qemu"
SCENARIOS_INI: Final = "bootproof_scenarios"
JOBS_OPTION: Final = "--bootproof-jobs"
QUIET_OPTION: Final = "--bootproof-quiet"
BASELINE_OPTION: Final = "--bootproof-baseline"
THRESHOLD_OPTION: Final = "--bootproof-threshold"
KTAP_OPTION: Final = "--bootproof-ktap"
PROPERTY: Final = "bootproof"  # of a test report: the case's result
REFERENCE_PROPERTY: Final = "bootproof-reference"  # a case's id, and its reference boot
MATRIX_COMMAND: Final = f"{places.COMMAND} matrix"
