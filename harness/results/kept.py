"""Results of a run while it goes on: some MiB of them in memory, and all others in a file.

A transcript has tens of KiB, and a run may have thousands. Owns a file that nobody else can open,
and that is gone with this process whatever ends it. What is in it is read again each time that it
is asked for, which the reports do forty times.
"""

from __future__ import annotations

import contextlib
import pickle
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Final, overload

from bootproof.harness.results.results import CaseResult

_IN_MEMORY: Final = 16 << 20  # pickled bytes: twice as many as the default matrix has


class Kept:
    """The cases of one run. `directory` is where the file is made, with the first that is in it;
    `room` is how many bytes of them are kept in memory.
    """

    def __init__(self, directory: Path, room: int = _IN_MEMORY) -> None:
        self._directory, self._room = directory, room
        self._file: IO[bytes] | None = None
        # By id; itself where it is kept in memory, as it is where the disk has no room for it.
        self._places: dict[str, int | CaseResult] = {}

    def add(self, case: CaseResult) -> None:
        """Keeps a case, in place of an earlier one of its id."""
        self._places[case.case] = case
        with contextlib.suppress(OSError):
            data = pickle.dumps(case)
            self._room -= len(data)
            if self._room < 0:
                self._places[case.case] = self._written(data)

    def _written(self, pickled: bytes) -> int:
        if self._file is None:
            self._file = tempfile.TemporaryFile(dir=self._directory, buffering=0)  # noqa: SIM115
            weakref.finalize(self, self._file.close)
        place = self._file.seek(0, 2)
        data = memoryview(pickled)
        while data:
            data = data[self._file.write(data) :]
        return place

    def get(self, case: str) -> CaseResult | None:
        """The case of this id."""
        place = self._places.get(case)
        if not isinstance(place, int):
            return place
        assert self._file is not None
        self._file.seek(place)
        found: CaseResult = pickle.load(self._file)
        return found

    def __len__(self) -> int:
        return len(self._places)

    def cases(self) -> Sequence[CaseResult]:
        """All that there are by now, by id."""
        return _Cases(self, sorted(self._places))


class _Cases(Sequence[CaseResult]):
    def __init__(self, kept: Kept, ids: Sequence[str]) -> None:
        self._kept, self._ids = kept, ids

    def __len__(self) -> int:
        return len(self._ids)

    @overload
    def __getitem__(self, index: int) -> CaseResult: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[CaseResult]: ...

    def __getitem__(self, index: int | slice) -> CaseResult | Sequence[CaseResult]:
        if isinstance(index, slice):
            return _Cases(self._kept, self._ids[index])
        case = self._kept.get(self._ids[index])
        assert case is not None, "what is kept stays"
        return case

    def __iter__(self) -> Iterator[CaseResult]:
        return map(self.__getitem__, range(len(self)))
