"""A profile as one page: its flame graph and its tables, or the difference of two.

The page opens from disk, asks the network for nothing, and works without its script, which only
enlarges a part. The names in it may come from a hostile kernel: the template escapes them. Pure.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import field
from typing import Final

from bootproof.dataclass import dataclass
from bootproof.harness.record.profile import Growth, Part, Profile
from bootproof.harness.report import profile_text
from bootproof.harness.report.page import TEMPLATES, environment, policy_hash

_SMALLEST: Final = 0.0005  # of the whole: what is narrower cannot be seen
_MOST: Final = 200
_COLOURS: Final = 8


@dataclass(slots=True)
class Node:
    """A frame of the flame graph, with what it called."""

    name: str
    instructions: int = 0
    children: dict[str, Node] = field(default_factory=dict)

    @property
    def shown(self) -> list[Node]:
        return [child for child in self.children.values() if child.instructions]

    @property
    def own(self) -> int:
        """What no child has."""
        return self.instructions - sum(child.instructions for child in self.shown)

    @property
    def colour(self) -> int:
        """The same for the same name, in every graph."""
        return sum(self.name.encode()) % _COLOURS


@dataclass(frozen=True, slots=True)
class Row:
    """A line of a table."""

    what: str
    instructions: int


def render(profile: Profile) -> str:
    """The page of one boot."""
    tables = {
        "Stages": [Row(*row) for row in profile.stages],
        "Initcalls": [Row(*row) for row in profile.initcalls[:_MOST]],
        "Functions": [Row(*row) for row in list(profile.functions.items())[:_MOST]],
    }
    return _page(profile, tables, None, {})


def render_difference(before: Profile, now: Profile) -> str:
    """The page of two: the second one's flame graph, and what changed."""
    return _page(now, {}, before, profile_text.differences(before, now))


def _page(
    profile: Profile,
    tables: dict[str, list[Row]],
    before: Profile | None,
    changes: dict[str, list[Growth]],
) -> str:
    script = (TEMPLATES / "profile.js").read_text("utf-8")
    template = environment().get_template("profile.html.j2")
    return template.render(
        profile=profile,
        before=before,
        root=tree(profile.parts),
        tables=tables,
        changes=changes,
        script=script,
        script_hash=policy_hash(script),
        style=(TEMPLATES / "report.css").read_text("utf-8"),
    )


def tree(parts: Sequence[Part]) -> Node:
    """The frames of a flame graph, stages in their order; too narrow ones are in their caller."""
    root = Node("all")
    for part in parts:
        node = root
        node.instructions += part.instructions
        for frame in part.stack:
            node = node.children.setdefault(frame, Node(frame))
            node.instructions += part.instructions
    _prune(root, round(root.instructions * _SMALLEST))
    return root


def _prune(root: Node, least: int) -> None:
    for node in _all(root):
        node.children = {
            name: child for name, child in node.children.items() if child.instructions >= least
        }


def _all(root: Node) -> Iterator[Node]:
    waiting = [root]
    while waiting:
        node = waiting.pop()
        yield node
        waiting += node.children.values()
