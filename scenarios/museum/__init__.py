"""The museum: hand-overs as VMMs and loaders really got them wrong, each beside the right one.

Every exhibit writes two boot images that differ in one mistake. The broken one is named by the rule
that it breaks, without starting it; the fixed one breaks none. What happened, and where it was
reported, stands with it; an exhibit without a report comes from the document's own rule. The
kernels in them are a few bytes that halt: nothing of them is executed.

Must not know how images are judged: bootproof.loader.rules is the other side of every exhibit.
"""

from __future__ import annotations

from pathlib import Path

from bootproof.dataclass import dataclass
from bootproof.loader import bootimage
from bootproof.loader.bootimage import BootImage
from bootproof.loader.memory import GuestMemory
from bootproof.loader.rules import Grade
from bootproof.scenarios.museum.scene import Change, Scene, Setting, set_up


@dataclass(frozen=True, slots=True)
class Exhibit:
    """A mistake in the hand-over."""

    name: str
    # The right hand-over that it starts from.
    setting: Setting
    # What was done, in one line.
    what: str
    # The rule that it breaks.
    code: str
    broken: Change
    # Project and number of the report; without one it is rebuilt from the document's rule.
    reported: str = ""
    # What the fixed image has as well.
    fixed: Change = lambda scene: None
    # Kernels get by all the same.
    tolerated: bool = False

    @property
    def grade(self) -> Grade:
        """What the finding is."""
        return Grade.TOLERATED if self.tolerated else Grade.VIOLATION

    def write(self, directory: Path, *, fixed: bool) -> BootImage:
        """Writes one of its two boot images into a directory that is there."""
        with GuestMemory(self.setting.banks, path=directory / bootimage.RAM) as memory:
            scene: Scene = set_up(self.setting, memory)
            self.fixed(scene)
            if not fixed:
                self.broken(scene)
            image = scene.image()
        bootimage.save(image, directory)
        return image
