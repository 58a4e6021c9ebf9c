"""`bootproof bisect`: which of many images, the good ones first, is the first that fails."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from bootproof.dataclass import dataclass
from bootproof.harness import places
from bootproof.harness.commands import Command, bisect_options
from bootproof.harness.commands import parser as options
from bootproof.harness.errors import UsageError, UserError
from bootproof.harness.exitcode import CANNOT_TELL, OK
from bootproof.printable import one_line

if TYPE_CHECKING:
    from bootproof.harness.marks import Mark
    from bootproof.harness.results.bisection import Search, Sought


def _add_options(parser: argparse.ArgumentParser) -> None:
    from bootproof.harness.commands import case_options

    parser.add_argument(
        "images",
        nargs="+",
        metavar="IMAGE",
        help="the good ones first: files, packages, build directories, names of the catalogue;"
        " of any other directory all the kernels in it, by the versions in their names",
    )
    bisect_options.add_sought(parser)
    parser.add_argument("--list", action="store_true", help="only print the images in order")
    parser.add_argument(
        "--out",
        type=options.path,
        metavar="DIR",
        default=places.output() / "bisect",
        help="the run directories' place",
    )
    case_options.add_brief_options(parser, "for every guest", "boot")


def _run(arguments: argparse.Namespace) -> int:
    """0 when one image is named; else it cannot be told."""
    from bootproof.harness.cases import qemus, schema
    from bootproof.harness.commands import case_options
    from bootproof.harness.host import files
    from bootproof.harness.inputs import row
    from bootproof.harness.results import bisection
    from bootproof.kernels import sources

    sought = bisection.sought(arguments.same_as, arguments.other_failures)
    asked = case_options.words(arguments, "boot")
    schema.check_keys((entry.name for entry in schema.options("boot")), asked, (), "option")
    images = row.expanded(arguments.images)
    for image in images:  # one that cannot be tested is left out, a wrong word is not
        sources.look_up(image)
    if not arguments.list:
        if len(images) < 2:
            told = "name the good ones, then the bad ones"
            raise UsageError(f"one image is nothing to search in: {told}")
        files.refuse_unwritable(arguments.out)
    named = [one_line(image) for image in images]
    count = f"images    {len(images)}, from {named[0]} to {named[-1]}"
    if arguments.list:
        print(count, *(f"{number:>3}  {image}" for number, image in enumerate(named, 1)), sep="\n")
        return OK
    words, paths = qemus.of_words(asked)
    tester = _Tester(images, words, paths, sought, arguments.out)
    search = bisection.Search(len(images))
    tester.refuse_words(search.next() or 0)
    print(count, flush=True)
    while (at := search.next()) is not None:
        search.tell(at, tester.mark(at))
    return _tell(search, tester, case_options.typed(asked))


@dataclass(frozen=True, slots=True)
class _Ended:
    """What became of one image."""

    mark: Mark
    what: str
    # The run directory; None where nothing was started.
    directory: Path | None = None


class _Tester:
    """Boots images of a row, each kernel once: another boot of it would end in the same way."""

    def __init__(
        self,
        images: Sequence[str],
        words: Mapping[str, Any],
        qemus: Mapping[str, str],
        sought: Sought,
        out: Path,
    ) -> None:
        self.images = images
        self.ended: dict[int, _Ended] = {}
        self.boots = 0
        self._words, self._qemus = words, qemus
        self._sought, self._out = sought, out
        self._by_kernel: dict[str, _Ended] = {}

    def refuse_words(self, first: int) -> None:
        """Raises UsageError for what two images are refused for in the same words: that is no
        fault of an image's, and would be told of each. `first` is the one that is tested first.
        """
        refused = self._refusal(self.images[first])
        other = next((image for image in self.images if image != self.images[first]), None)
        if refused is not None and other is not None and refused == self._refusal(other):
            raise UsageError(refused)

    def _refusal(self, image: str) -> str | None:
        from bootproof.harness.cases.from_kernel import case_of
        from bootproof.harness.prepare import Options, asked

        try:
            asked(case_of(image, self._words, "boot"), Options(qemus=self._qemus))
        except UsageError:
            raise
        except _untested() as error:
            return str(error)
        return None

    def mark(self, at: int) -> Mark:
        """What an image is; told as it becomes known."""
        from bootproof.harness.marks import Mark

        try:
            ended = self._test(at)
        except UsageError:
            raise
        except _untested() as error:
            ended = _Ended(Mark.CANNOT_TELL, str(error).removeprefix(f"{self.images[at]}: "))
        self.ended[at] = ended
        print(one_line(f"{at + 1:<9} {self.images[at]}: {ended.mark}: {ended.what}"), flush=True)
        return ended.mark

    def _test(self, at: int) -> _Ended:
        from bootproof.harness.cases.from_kernel import case_of
        from bootproof.harness.inputs import images
        from bootproof.harness.prepare import Options
        from bootproof.harness.prove import prove
        from bootproof.harness.results.bisection import failure

        case = case_of(self.images[at], self._words, "boot")
        sha256 = images.kernel_file(case.kernel_source).sha256
        if sha256 not in self._by_kernel:
            directory = self._out / f"{at + 1}"
            proven = prove(case, directory, Options(qemus=self._qemus))
            self.boots += proven.outcome is not None
            found = failure(proven.verdict.value, proven.problem)
            what = proven.problem or proven.verdict.value
            self._by_kernel[sha256] = _Ended(self._sought.mark(found), what, directory)
        return self._by_kernel[sha256]


def _untested() -> tuple[type[Exception], ...]:
    """What says of an image that it cannot be tested."""
    from bootproof.kernels.errors import FetchError
    from bootproof.loader.errors import LoaderError

    return UserError, FetchError, LoaderError


def _tell(search: Search, tester: _Tester, asked: str) -> int:
    """What the search came to, as text and exit code."""
    images, ended = [*map(one_line, tester.images)], tester.ended
    good = images[search.last_good] if search.last_good >= 0 else None
    bad = images[search.first_bad] if search.first_bad < len(images) else None
    print(f"boots     {tester.boots}")
    print(f"last good {good or 'none'}")
    if untested := search.untested:
        print(f"untested  {', '.join(images[at] for at in untested)}")
    if bad is None:
        print("first bad none")
        return CANNOT_TELL
    named = good is not None and not untested
    print(f"first bad {'' if named else 'not known; no later than '}{bad}")
    print(f"reason    {one_line(ended[search.first_bad].what)}")
    print(f"reproduce {places.COMMAND} boot {shlex.quote(bad)}{asked}")
    print(f"run       {one_line(str(ended[search.first_bad].directory))}")
    return OK if named else CANNOT_TELL


COMMAND: Final = Command(
    "find the first of many images that fails",
    "bisect linux-image-6.1*.deb linux-image-6.12*.deb",
    _run,
    _add_options,
    "[options] GOOD... BAD...",
)
