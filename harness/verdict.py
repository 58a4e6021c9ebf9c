"""The finite list of verdicts."""

from __future__ import annotations

import enum
from typing import Final


class Verdict(enum.Enum):
    """How a case ended. The values are stable: they stand in JSON files."""

    BOOTED = "booted"
    HANDED_OVER = "handed-over"
    TESTS_FAILED = "tests-failed"
    BOOTED_WRONG = "booted-wrong"
    LOAD_REFUSED = "load-refused"
    ENTRY_NOT_REACHED = "entry-not-reached"
    PROTOCOL_VIOLATION = "protocol-violation"
    HANDOVER_WRONG = "handover-wrong"
    CPU_RESET = "cpu-reset"
    PANIC = "panic"
    OOPS = "oops"
    INIT_FAILED = "init-failed"
    STUCK = "stuck"
    SILENT = "silent"
    OVER_BUDGET = "over-budget"
    CONSOLE_LIMIT = "console-limit"
    GUEST_SHUTDOWN_EARLY = "guest-shutdown-early"
    QEMU_FAILED = "qemu-failed"
    INCONCLUSIVE = "inconclusive"
    INTERRUPTED = "interrupted"

    @property
    def passed(self) -> bool:
        """Whether the guest did all that was asked of it.

        One that carries no proof of ours can do no more than be handed over.
        """
        return self in {Verdict.BOOTED, Verdict.HANDED_OVER}

    @property
    def of_kernel(self) -> bool:
        """Whether the kernel itself has said that it failed."""
        return self in {Verdict.PANIC, Verdict.OOPS, Verdict.INIT_FAILED}

    @property
    def of_handover(self) -> bool:
        """Whether the kernel did not begin as asked: nothing after that counts."""
        return self in {
            Verdict.ENTRY_NOT_REACHED,
            Verdict.PROTOCOL_VIOLATION,
            Verdict.HANDOVER_WRONG,
        }

    @property
    def needs_configuration(self) -> bool:
        """Whether the cause may be what the kernel was built without: it could not start our init,
        or nobody heard of it.
        """
        return self in {
            Verdict.PANIC,
            Verdict.INIT_FAILED,
            Verdict.STUCK,
            Verdict.SILENT,
            Verdict.GUEST_SHUTDOWN_EARLY,
            Verdict.INCONCLUSIVE,
        }

    @property
    def needs_place(self) -> bool:
        """Whether only the place where the CPU is tells what happened: the guest says nothing."""
        return self in {Verdict.STUCK, Verdict.SILENT, Verdict.CPU_RESET, Verdict.OVER_BUDGET}

    @property
    def of_host(self) -> bool:
        """Whether it says nothing of the guest: the host or QEMU was in its way."""
        return self in {Verdict.QEMU_FAILED, Verdict.INCONCLUSIVE, Verdict.INTERRUPTED}


OF_HOST: Final = frozenset(verdict.value for verdict in Verdict if verdict.of_host)
"""The same as it stands in results."""
