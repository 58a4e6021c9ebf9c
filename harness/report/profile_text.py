"""A profile, or the difference of two, as text for a terminal and as folded stacks. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from bootproof.harness.record.profile import Growth, Profile, growth

_MOST: Final = 20


def summary(profile: Profile) -> str:
    """Stages, the costliest initcalls and functions, each with its instructions and share."""
    return "\n".join(_lines(profile)) + "\n"


def _lines(profile: Profile) -> Iterator[str]:
    whole = profile.instructions
    yield f"profile   {profile.name}"
    yield f"total     {whole:,} guest instructions, {profile.samples:,} samples"
    if profile.remark is not None:
        yield f"no names  {profile.remark}"
    tables: Mapping[str, Mapping[str, int]] = {
        "stage": dict(profile.stages),
        "initcall": dict(profile.initcalls[:_MOST]),
        "function": dict([*profile.functions.items()][:_MOST]),
    }
    for what, counts in tables.items():
        for name, count in counts.items():
            yield f"{what:<9} {count:>16,} {count / whole:>6.1%}  {name}"


def folded(profile: Profile) -> str:
    """A line for each stack, `outermost;…;innermost COUNT`, as flame-graph tools read it."""
    lines = (
        f"{';'.join(frame.replace(';', ',') for frame in part.stack)} {part.instructions}\n"
        for part in sorted(profile.parts, key=lambda part: part.stack)
    )
    return "".join(lines)


def difference(before: Profile, now: Profile) -> str:
    """What grew and what shrank from one boot to the other, in instructions."""
    change = now.instructions - before.instructions
    lines = [
        f"before    {before.name}: {before.instructions:,} guest instructions",
        f"now       {now.name}: {now.instructions:,} guest instructions",
        f"change    {change:+,} ({change / before.instructions:+.2%})",
    ]
    for profile in (before, now):
        lines += [f"no names  {profile.name}: {profile.remark}"] if profile.remark else []
    for what, rows in differences(before, now).items():
        lines += [
            f"{what:<9} {row.change:>+16,} ({row.before:,} -> {row.now:,})  {row.what}"
            for row in rows
        ]
    return "\n".join(lines) + "\n"


def differences(before: Profile, now: Profile) -> dict[str, list[Growth]]:
    """What changed most of each kind: what grew, then what shrank."""
    return {
        "stage": _changed(growth(dict(before.stages), dict(now.stages))),
        "initcall": _changed(growth(dict(before.initcalls), dict(now.initcalls))),
        "function": _changed(growth(before.functions, now.functions)),
    }


def _changed(rows: list[Growth]) -> list[Growth]:
    grew = [row for row in rows if row.change > 0][:_MOST]
    shrank = [row for row in rows if row.change < 0][-_MOST:]
    return [*grew, *shrank]
