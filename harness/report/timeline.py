"""The stages of a boot on a common scale with a reference's, in percent of a page. Pure."""

from __future__ import annotations

from collections.abc import Mapping

from bootproof.dataclass import dataclass
from bootproof.harness.results.changes import stage_costs
from bootproof.harness.results.results import CaseResult, Reference

END = "end"


@dataclass(frozen=True, slots=True)
class Step:
    """What one stage took, in guest instructions."""

    name: str
    colour: int  # from 0: the same for the same stage of both boots, and of no other stage
    cost: int  # since the stage before
    reached: int  # since the start
    guest_seconds: float | None
    reference: int | None  # the cost there
    left: float  # percent of the scale
    width: float

    @property
    def change(self) -> float | None:
        """Against the reference."""
        return (self.cost - self.reference) / self.reference if self.reference else None


@dataclass(frozen=True, slots=True)
class Timeline:
    """A boot and the one beside it."""

    total: int  # guest instructions of the whole boot
    reference: int | None
    steps: tuple[Step, ...]
    reference_steps: tuple[Step, ...]


def timeline(case: CaseResult, reference: CaseResult | Reference | None) -> Timeline | None:
    """The time line of a case; None when not one of its stages has an instruction count."""
    costs = _costs(case)
    if case.instructions is None or len(costs) < 2:
        return None
    total = sum(costs.values())
    comparable = reference is not None and reference.instructions is not None
    other = _costs(reference) if reference is not None and comparable else {}
    whole = max(total, sum(other.values()), 1)
    colours = {name: number for number, name in enumerate(dict.fromkeys((*costs, *other)))}
    seconds = {stage.name: stage.guest_seconds for stage in case.stages}
    return Timeline(
        total=total,
        reference=reference.instructions if reference is not None and comparable else None,
        steps=_steps(costs, colours, seconds, other, whole),
        reference_steps=_steps(other, colours, {}, {}, whole),
    )


def _costs(case: CaseResult | Reference) -> dict[str, int]:
    costs = dict(stage_costs(case))
    if case.instructions is not None:
        costs[END] = max(0, case.instructions - sum(costs.values()))
    return costs


def _steps(
    costs: Mapping[str, int],
    colours: Mapping[str, int],
    seconds: Mapping[str, float | None],
    reference: Mapping[str, int],
    whole: int,
) -> tuple[Step, ...]:
    steps, reached = [], 0
    for name, cost in costs.items():
        left, width = round(reached * 100 / whole, 4), round(cost * 100 / whole, 4)
        reached += cost
        steps.append(
            Step(
                name=name,
                colour=colours[name],
                cost=cost,
                reached=reached,
                guest_seconds=seconds.get(name),
                reference=reference.get(name),
                left=left,
                width=width,
            )
        )
    return tuple(steps)
