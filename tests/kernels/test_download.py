"""Downloads over a real connection that breaks in every way we know of."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from bootproof.kernels.download import Downloader, RetryPolicy, Wanted
from bootproof.kernels.errors import NoNetwork, NotOnMirror, ServerRefused, WrongHash
from bootproof.printable import shown_url
from tests.kernels.conftest import FAST, Recorder
from tests.kernels.debian import sha256
from tests.kernels.server import POUR_LIMIT, Fault, Mirror

BODY = bytes(i * i % 251 for i in range(400_000))
WANTED = Wanted("file", len(BODY), sha256(BODY))
HALF = len(BODY) // 2


@pytest.fixture
def progress() -> Recorder:
    return Recorder()


@pytest.fixture
def downloader(progress: Recorder) -> Iterator[Downloader]:
    downloader = Downloader(progress, FAST)
    yield downloader
    downloader.close()


@pytest.fixture
def url(mirror: Mirror) -> str:
    (mirror.root / "file").write_bytes(BODY)
    return f"{mirror.url}/file"


@pytest.fixture
def part(tmp_path: Path) -> Path:
    return tmp_path / "parts" / "x.part"


def ranges(mirror: Mirror) -> list[str | None]:
    return [request.range for request in mirror.requests]


def test_whole_file(downloader: Downloader, url: str, part: Path, mirror: Mirror) -> None:
    downloader.save(url, part, WANTED)
    assert part.read_bytes() == BODY
    assert ranges(mirror) == [None]


def test_dropped_connection_is_resumed_where_it_broke(
    downloader: Downloader, url: str, part: Path, mirror: Mirror, progress: Recorder
) -> None:
    mirror.faults = [Fault("/file", cut_after=HALF)]
    downloader.save(url, part, WANTED)
    assert part.read_bytes() == BODY
    assert ranges(mirror) == [None, f"bytes={HALF}-"]
    assert sum(request.sent for request in mirror.requests) == len(BODY)
    assert "the connection was lost" in progress.notes[0]
    assert "trying again in 0 s (try 2 of 3)" in progress.notes[0]


def test_a_line_that_breaks_often_but_gets_on_is_not_given_up(
    downloader: Downloader, url: str, part: Path, mirror: Mirror
) -> None:
    mirror.faults = [Fault("/file", times=5, cut_after=70_000)]
    downloader.save(url, part, WANTED)
    assert part.read_bytes() == BODY
    assert len(mirror.requests) == 6


def test_a_line_that_does_not_get_on_is_given_up_and_the_part_stays(
    downloader: Downloader, url: str, part: Path, mirror: Mirror
) -> None:
    mirror.faults = [Fault("/file", times=9, cut_after=10)]
    with pytest.raises(NoNetwork, match=r"cannot fetch .*/file: .*\(3 tries\); check the network"):
        downloader.save(url, part, WANTED)
    assert len(mirror.requests) == 3
    assert part.read_bytes() == BODY[:30]


def test_the_part_of_an_earlier_process_is_continued(
    downloader: Downloader, url: str, part: Path, mirror: Mirror, progress: Recorder
) -> None:
    part.parent.mkdir()
    part.write_bytes(BODY[:1000])
    downloader.save(url, part, WANTED)
    assert part.read_bytes() == BODY
    assert ranges(mirror) == ["bytes=1000-"]
    assert progress.downloads == [("file", len(BODY), 1000)]


def test_a_complete_part_is_only_checked(
    downloader: Downloader, url: str, part: Path, mirror: Mirror
) -> None:
    part.parent.mkdir()
    part.write_bytes(BODY)
    downloader.save(url, part, WANTED)
    assert mirror.requests == []


@pytest.mark.parametrize("left", [b"garbage", bytes(len(BODY)), bytes(len(BODY) + 5)])
def test_a_part_that_is_something_else_is_replaced(
    downloader: Downloader, url: str, part: Path, mirror: Mirror, left: bytes
) -> None:
    part.parent.mkdir()
    part.write_bytes(left)
    downloader.save(url, part, WANTED)
    assert part.read_bytes() == BODY
    assert ranges(mirror)[-1] is None


def test_a_server_without_ranges_makes_us_start_again(
    downloader: Downloader, url: str, part: Path, mirror: Mirror
) -> None:
    mirror.faults = [Fault("/file", cut_after=HALF), Fault("/file", no_range=True)]
    downloader.save(url, part, WANTED)
    assert part.read_bytes() == BODY
    assert [request.sent for request in mirror.requests] == [HALF, len(BODY)]


def test_a_server_that_sends_another_range_is_not_believed(
    downloader: Downloader, url: str, part: Path, mirror: Mirror, progress: Recorder
) -> None:
    mirror.faults = [Fault("/file", cut_after=HALF), Fault("/file", content_range="bytes 5-9/10")]
    downloader.save(url, part, WANTED)
    assert part.read_bytes() == BODY
    assert f"it sent bytes 5-9/10 when asked for {HALF}-" in progress.notes[1]


def test_a_server_that_has_nothing_there_makes_us_start_again(
    downloader: Downloader, url: str, part: Path, mirror: Mirror
) -> None:
    part.parent.mkdir()
    part.write_bytes(BODY[:HALF])
    mirror.faults = [Fault("/file", status=416)]
    downloader.save(url, part, WANTED)
    assert part.read_bytes() == BODY
    assert ranges(mirror) == [f"bytes={HALF}-", None]


def test_wrong_content_is_refused_and_removed(
    downloader: Downloader, url: str, part: Path, mirror: Mirror
) -> None:
    (mirror.root / "file").write_bytes(BODY[:-1] + b"!")
    with pytest.raises(WrongHash, match=r"/file is not the file .*its SHA-256 is [0-9a-f]{64}; "):
        downloader.save(url, part, WANTED)
    assert not part.exists()
    assert len(mirror.requests) == 1


@pytest.mark.parametrize("silent", [False, True])
def test_a_longer_file_is_refused_and_removed(
    downloader: Downloader, url: str, part: Path, mirror: Mirror, silent: bool
) -> None:
    (mirror.root / "file").write_bytes(BODY + b"!")
    mirror.faults = [Fault("/file", no_length=True)] if silent else []
    with pytest.raises(WrongHash, match="it is longer" if silent else "it has 400001 bytes"):
        downloader.save(url, part, WANTED)
    assert not part.exists()
    assert len(mirror.requests) == 1


def test_a_shorter_file_is_refused_and_removed(
    downloader: Downloader, url: str, part: Path, mirror: Mirror
) -> None:
    (mirror.root / "file").write_bytes(BODY[:-1])
    with pytest.raises(WrongHash, match="it has 399999 bytes"):
        downloader.save(url, part, WANTED)
    assert not part.exists()
    assert len(mirror.requests) == 1


def test_an_endless_answer_is_cut_off(
    downloader: Downloader, url: str, part: Path, mirror: Mirror
) -> None:
    mirror.faults = [Fault("/file", times=9, endless=True)]
    with pytest.raises(WrongHash, match="it is longer"):
        downloader.save(url, part, WANTED)
    with pytest.raises(ServerRefused, match="larger than"):
        downloader.read(url, limit=1 << 20)
    assert not part.exists()
    assert mirror.poured < POUR_LIMIT // 2


def test_an_answer_of_unknown_length_that_ends_early_is_resumed(
    downloader: Downloader, url: str, part: Path, mirror: Mirror, progress: Recorder
) -> None:
    mirror.faults = [Fault("/file", no_length=True, cut_after=HALF)]
    downloader.save(url, part, WANTED)
    assert part.read_bytes() == BODY
    assert f"it ended at byte {HALF} of {len(BODY)}" in progress.notes[0]


@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_server_in_trouble_is_asked_again(
    downloader: Downloader, url: str, part: Path, mirror: Mirror, status: int
) -> None:
    mirror.faults = [Fault("/file", times=2, status=status)]
    downloader.save(url, part, WANTED)
    assert len(mirror.requests) == 3


def test_a_server_in_lasting_trouble_is_given_up(
    downloader: Downloader, url: str, part: Path, mirror: Mirror
) -> None:
    mirror.faults = [Fault("/file", times=99, status=503)]
    with pytest.raises(NoNetwork, match=r"it answers 503 Service Unavailable \(3 tries\)"):
        downloader.save(url, part, WANTED)
    assert len(mirror.requests) == 3


def test_a_stalled_server_is_left(url: str, part: Path, mirror: Mirror) -> None:
    impatient = Downloader(Recorder(), RetryPolicy(tries=2, first_delay=0, read_timeout=0.1))
    mirror.faults = [Fault("/file", times=2, stall=0.3)]
    with pytest.raises(NoNetwork, match=r"timed out \(2 tries\)"):
        impatient.save(url, part, WANTED)
    impatient.close()


@pytest.mark.parametrize(
    ("status", "error"), [(404, NotOnMirror), (410, NotOnMirror), (403, ServerRefused)]
)
def test_a_clear_no_is_believed_at_once(
    downloader: Downloader, url: str, part: Path, mirror: Mirror, status: int, error: type
) -> None:
    mirror.faults = [Fault("/file", times=9, status=status)]
    with pytest.raises(error, match=f"/file: the server answers {status} "):
        downloader.save(url, part, WANTED)
    assert len(mirror.requests) == 1


def test_nobody_listens(downloader: Downloader, part: Path, progress: Recorder) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with pytest.raises(NoNetwork, match=r"Connection refused \(3 tries\); check the network"):
        downloader.save(f"http://127.0.0.1:{port}/file", part, WANTED)
    assert len(progress.notes) == 2


def test_an_address_that_is_none(downloader: Downloader, part: Path) -> None:
    with pytest.raises(ServerRefused, match="is the address right"):
        downloader.save("http:///file", part, WANTED)


def test_a_small_file_is_read_whole_after_a_break(
    downloader: Downloader, url: str, mirror: Mirror
) -> None:
    mirror.faults = [Fault("/file", cut_after=HALF), Fault("/file", status=500)]
    assert downloader.read(url, limit=len(BODY)) == BODY


def test_a_small_file_that_is_not_small_is_refused(downloader: Downloader, url: str) -> None:
    with pytest.raises(ServerRefused, match="larger than"):
        downloader.read(url, limit=len(BODY) - 1)


def test_waits_double_after_each_failure() -> None:
    assert [RetryPolicy().delay(n) for n in (1, 2, 3, 4)] == [0.5, 1.0, 2.0, 4.0]


def test_passwords_are_not_shown() -> None:
    assert shown_url("https://me:secret@a.example/x?y") == "https://a.example/x?y"
