"""What a worker does with a case, in this process."""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from bootproof.harness.case import Case
from bootproof.harness.errors import UserError
from bootproof.harness.inputs import images
from bootproof.harness.prepare import inputs_of
from bootproof.harness.suite.cluster import client, luggage, work
from bootproof.harness.suite.cluster.work import Done, Job, Lacks
from bootproof.loader import initramfs
from bootproof.loader.address import MIB
from tests.builders.guests import X86Program
from tests.builders.processes import LOAD, vmlinux_with_text

RESETS = X86Program(LOAD).say(b"one\n").reset()
NEVER = X86Program(LOAD).say_for_ever(b"again\n")


@pytest.fixture(autouse=True)
def places(own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of a worker that has nothing yet; gives where its cases boot."""
    monkeypatch.setattr(images, "busybox", lambda arch: b"no busybox")
    booting = tmp_path / "tmp"
    booting.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(booting))
    return booting


def sent(case: Case) -> Job:
    """A case whose files were sent, and which are nowhere else any more."""
    job, contents = client.packed_up(case, inputs_of(case), "again", keep_ram=True)
    lacks = work.boot(job, lambda: True)
    assert isinstance(lacks, Lacks)
    for digest in lacks.files:
        luggage.keep(digest, contents[digest]())
    for name in (case.kernel_path, case.initrd):
        if name is not None:
            Path(name).unlink()
    return job


def case_of(directory: Path, program: X86Program) -> Case:
    path = directory / "vmlinux"
    path.write_bytes(vmlinux_with_text(program))
    return Case("x86_64", "k", "elf", "linux64", memory=32 * MIB, kernel_path=str(path))


def test_a_case_needs_no_file_of_the_machine_that_it_comes_from(
    tmp_path: Path, places: Path
) -> None:
    """And says of its kernel what it says there."""
    users = tmp_path / "users.cpio"
    users.write_bytes(initramfs.archive([initramfs.file("init", b"own", 0o755)]))
    case = replace(case_of(tmp_path, RESETS), initrd=str(users))
    done = work.boot(sent(case), lambda: True)
    assert isinstance(done, Done)
    assert done.result["verdict"] == "cpu-reset"
    luggage.unpacked(done.files, tmp_path / "back")
    described = json.loads((tmp_path / "back/boot.json").read_text("utf-8"))
    assert described["provenance"]["kernel"] == case.kernel_path
    assert not list(places.iterdir())


def test_what_travels_is_read_by_any_python(tmp_path: Path) -> None:
    """One pickles a Path as 3.13 does, and no older one can read that."""
    rooms = set()

    class Reader(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            rooms.add(module.partition(".")[0])
            return super().find_class(module, name)

    job = sent(case_of(tmp_path, RESETS))
    for each in (job, work.boot(job, lambda: True), Lacks(("a",)), work.Failed("why")):
        assert Reader(io.BytesIO(pickle.dumps(each))).load() == each
    assert rooms == {"bootproof"}


def test_a_refusal_names_the_kernel_as_the_user_does(tmp_path: Path) -> None:
    case = replace(case_of(tmp_path, RESETS), offset=3)
    done = work.boot(sent(case), lambda: True)
    assert isinstance(done, Done)
    assert done.result["verdict"] == "load-refused"
    assert done.result["reason"].startswith(f"{case.kernel_path}: ")


def test_a_guest_ends_when_nobody_wants_its_result(tmp_path: Path, places: Path) -> None:
    """As a whole: before it starts it is wanted, and some time later it is not."""
    looks = iter([True, True, True])
    job = sent(case_of(tmp_path, NEVER))
    with pytest.raises(UserError, match="not wanted any more"):
        work.boot(job, lambda: next(looks, False))
    assert not list(places.iterdir())


def test_a_device_tree_travels(tmp_path: Path) -> None:
    """As all that a case is made of, by its digest."""
    case = case_of(tmp_path, RESETS)
    inputs = replace(inputs_of(case), dtb=b"tree")
    job, contents = client.packed_up(case, inputs, "again", keep_ram=True)
    assert job.dtb == hashlib.sha256(b"tree").hexdigest()
    assert contents[job.dtb]() == b"tree"


def test_our_archive_is_hashed_once_and_what_is_large_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An initrd of a user's may have a GiB, and a matrix of days would have them all in memory."""
    case = case_of(tmp_path, RESETS)
    inputs = inputs_of(case)
    users = replace(inputs, initrd=bytes(5 * MIB))
    client._remembered.cache_clear()
    jobs = [
        client.packed_up(case, each, "again", keep_ram=True)[0] for each in (inputs, inputs, users)
    ]
    assert jobs[0].initrd == jobs[1].initrd == hashlib.sha256(inputs.initrd or b"").hexdigest()
    assert jobs[2].initrd == hashlib.sha256(bytes(5 * MIB)).hexdigest()
    asked = client._remembered.cache_info()
    assert (asked.hits, asked.misses, asked.currsize) == (1, 1, 1)
