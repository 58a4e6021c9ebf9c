"""results.json: written, read strictly, described by its schema, merged."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from bootproof.harness import exitcode
from bootproof.harness.case import Case, Expectation
from bootproof.harness.errors import UserError
from bootproof.harness.guest.evidence import GuestEvidence
from bootproof.harness.observation import Difference
from bootproof.harness.prove import prove
from bootproof.harness.results import results, shards
from bootproof.harness.results.results import Check, Kernel, Results
from bootproof.harness.suite.case_result import case_result
from bootproof.harness.verdict import Verdict
from bootproof.loader.address import MIB
from tests import ROOT
from tests.builders import results as builder
from tests.builders.guests import X86Program
from tests.builders.processes import LOAD, vmlinux_with_text
from tests.docs import generated, results_schema

SCHEMA = ROOT / "docs" / "results.schema.json"


@pytest.fixture
def case(offline: None, tmp_path: Path) -> Case:
    kernel = tmp_path / "vmlinux"
    kernel.write_bytes(vmlinux_with_text(X86Program(LOAD).say(b"hello\n").reset()))
    return Case("x86_64", str(kernel), "elf", "linux64", memory=32 * MIB)


def saved(path: Path, *cases: results.CaseResult) -> dict[str, Any]:
    results.write(builder.run(*cases, checks=(Check("t", "skipped", "no QEMU", 0.1),)), path)
    data: dict[str, Any] = json.loads(path.read_text())
    return data


def test_there_and_back(tmp_path: Path) -> None:
    found = builder.run(builder.case(), builder.failed(), builder.refused())
    results.write(found, tmp_path / "results.json")
    assert results.read(tmp_path / "results.json") == found
    assert results.read(tmp_path) == found
    assert [path.name for path in tmp_path.iterdir()] == ["results.json"]
    results.write(builder.run(), tmp_path / "results.json")
    assert results.read(tmp_path) == builder.run()


def test_totals_are_said_and_follow_from_the_cases(tmp_path: Path) -> None:
    run = builder.run(builder.case("a"), builder.case("b"), builder.refused("c"))
    results.write(run, tmp_path / "results.json")
    data = json.loads((tmp_path / "results.json").read_text())
    assert data["totals"] == {
        "cases": 3,
        "checks": 0,
        "seconds": 3.75,
        "cpu_seconds": 1.8,
        "instructions": 2_600_000_000,
    }
    assert run.totals.words == "QEMU: 1.8 s of CPU time, 2.6 G instructions"
    data["totals"]["instructions"] = 1
    (tmp_path / "results.json").write_text(json.dumps(data))
    assert results.read(tmp_path) == run


def test_published_schema_is_the_one_of_the_types() -> None:
    made = results_schema.schema()
    generated.assert_is(SCHEMA, json.dumps(made, indent=2, ensure_ascii=False) + "\n")
    jsonschema.Draft202012Validator.check_schema(made)


def test_a_case_without_a_result_is_a_case() -> None:
    lost = Check("x.toml::claim[x86_64-6.1]", "error", "the disk is full", 0.0, of_case=True)
    found = builder.run(builder.case(), checks=(lost, Check("test_x", "passed", "", 0.0)))
    assert found.counts == "1 of 2 cases and 1 of 1 other tests"
    assert builder.run(checks=(lost,)).counts == "0 of 1 cases"


def test_real_case_follows_the_schema(case: Case, tmp_path: Path) -> None:
    """A boot of a tiny kernel on a real QEMU, with all that a result has."""
    proven = prove(case, tmp_path / "run")
    found = case_result(proven, "again")
    data = saved(tmp_path / "results.json", found, builder.refused())
    jsonschema.validate(data, json.loads(SCHEMA.read_text()))
    assert results.read(tmp_path / "results.json").cases[0] == found
    assert found.key is not None and found.key.boot_image is not None
    assert found.memory is not None
    assert {"kernel", "kernel file", "initrd", "reset stub"} <= {
        area.name for area in found.memory.regions
    }
    assert found.transcript is not None and found.transcript.lines == ["hello"]
    assert all(register.expected == register.actual for register in found.registers)
    assert proven.outcome is not None
    costs = proven.outcome.costs
    assert found.cpu_seconds == round(costs.cpu_seconds, 3) > 0
    assert found.instructions == costs.instructions
    assert found.kernel.sha256 == hashlib.sha256(Path(case.kernel).read_bytes()).hexdigest()
    assert (
        json.loads((tmp_path / "run" / "result.json").read_text())["key"] == data["cases"][0]["key"]
    )


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        (["cases", 0, "verdikt"], "x", "$.cases[0].verdikt: unknown key; did you mean verdict?"),
        (["cases", 0, "seconds"], "1", '$.cases[0].seconds: expected a number, found "1"'),
        (["cases", 0, "seconds"], -1, "$.cases[0].seconds: expected a number, found -0x1"),
        (["cases", 0, "unsafe"], 1, "$.cases[0].unsafe: expected true or false, found 0x1"),
        (["cases", 0, "reason"], "\ud800", "$.cases[0].reason: character 0 is half of a pair"),
        (["cases", 0, "stages", 0, "instructions"], True, "expected a whole number, found true"),
        (["cases", 0, "kernel"], [], "$.cases[0].kernel: expected an object, found a list"),
        (["cases", 0, "cpu_seconds"], 1e308, "$.cases[0].cpu_seconds: expected a number, found 1e"),
        (
            ["started"],
            "2026-02-30T00:00:00Z",
            '$.started: "2026-02-30T00:00:00Z" is no time such as',
        ),
        (["version"], 3, "$.version: 0x3 is of another bootproof; this one reads 2"),
        (["format"], "other", "$.format: is not 'bootproof results': another program's file"),
    ],
)
def test_damaged_file(path: list[Any], value: object, said: str, tmp_path: Path) -> None:
    data = saved(tmp_path / "results.json", builder.case())
    *way, last = path
    target: Any = data
    for step in way:
        target = target[step]
    target[last] = value
    (tmp_path / "results.json").write_text(json.dumps(data))
    with pytest.raises(UserError) as caught:
        results.read(tmp_path)
    text = str(caught.value)
    assert text.startswith(f"{tmp_path}/results.json: no results that can be read: ")
    assert said in text and "\n" not in text


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"", "not JSON"),
        (b"\xff", "not UTF-8 at byte 0"),
        (b"[]", "$: expected an object, found a list"),
        (b"[" * 100_000, "nested too deeply"),
        (b'{"version": 1, "cases": []}', "of an older bootproof; run the matrix again"),
        (b'{"testsuites": []}', "another program's file"),
    ],
)
def test_foreign_file(raw: bytes, said: str, tmp_path: Path) -> None:
    (tmp_path / "f.json").write_bytes(raw)
    with pytest.raises(UserError, match="no results that can be read") as caught:
        results.read(tmp_path / "f.json")
    assert said in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"verdict": "panic"}, "$.cases[0].problem: null, but the case is panic instead of booted"),
        ({"verdict": "great"}, '$.cases[0].verdict: "great" is not one of booted, '),
        ({"expected": {"verdict": "x", "why": ""}}, '$.cases[0].expected.verdict: "x" is not one'),
        ({"tests": [{"name": "t", "status": "failled"}]}, "tests[0].status: "),
    ],
)
def test_case_that_contradicts_itself(change: dict[str, Any], said: str, tmp_path: Path) -> None:
    """What it says is wrong would be shown as right: exit code 0 of a panic."""
    data = saved(tmp_path / "results.json", builder.case())
    data["cases"][0] |= change
    (tmp_path / "results.json").write_text(json.dumps(data))
    with pytest.raises(UserError) as caught:
        results.read(tmp_path)
    assert said in str(caught.value)


@pytest.mark.parametrize("name", ["cases", "checks"])
def test_a_case_that_was_cut_out_is_missed(name: str, tmp_path: Path) -> None:
    """By all that read results: the rest of them still says that all is as expected."""
    data = saved(tmp_path / "results.json", builder.case("a"), builder.failed("b"))
    count = len(data[name])
    del data[name][-1]
    (tmp_path / "results.json").write_text(json.dumps(data))
    with pytest.raises(UserError) as caught:
        results.read(tmp_path)
    said = f"$.{name}: {count - 1} of them, but {count} were written ($.totals.{name})"
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            lambda data: data.pop("totals"),
            r"\$\.totals\.cases: missing, so nobody can tell whether",
        ),
        (lambda data: data["totals"].pop("cases"), r"\$\.totals\.cases: missing, so nobody can"),
        (lambda data: data["totals"].pop("checks"), r"\$\.totals\.checks: missing, so nobody can"),
        (lambda data: data.update(totals=None), r"\$\.totals: expected an object, found null"),
        (lambda data: data["totals"].update(cases=True), r"\$\.totals\.cases: expected a number"),
    ],
    ids=["no totals", "no cases", "no checks", "null", "no number"],
)
def test_a_file_that_does_not_say_how_much_it_held(
    change: Callable[[dict[str, Any]], object], said: str, tmp_path: Path
) -> None:
    """Of an older bootproof, or without what gives a cut away: it was shown as if it were whole."""
    data = saved(tmp_path / "results.json", builder.case("a"), builder.failed("b"))
    change(data)
    (tmp_path / "results.json").write_text(json.dumps(data))
    with pytest.raises(UserError, match=said) as caught:
        results.read(tmp_path)
    assert "\n" not in str(caught.value)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(data, results_schema.schema())


@pytest.mark.parametrize(("number", "of"), [(0, 0), (3, 2), (1, 10**9)])
def test_shard_that_is_none(number: int, of: int, tmp_path: Path) -> None:
    """The first passed for a whole run; to tell which of a billion are missing takes for ever."""
    data = saved(tmp_path / "results.json", builder.case())
    data["run"] = {
        "id": "i",
        "shared_id": None,
        "selection": "",
        "selected": "",
        "planned": 1,
        "shard": {"number": number, "of": of},
    }
    (tmp_path / "results.json").write_text(json.dumps(data))
    with pytest.raises(UserError, match=rf"\$\.run\.shard: {number}/{of} is none of 1 to 9999"):
        results.read(tmp_path)


@pytest.mark.parametrize(("number", "of"), [(1, 2), (2, 2), (9999, 9999)])
def test_shard_that_is_one(number: int, of: int, tmp_path: Path) -> None:
    shard = builder.shard(number, builder.case(), of=of)
    results.write(shard, tmp_path / "results.json")
    assert results.read(tmp_path) == shard


def test_check_with_an_outcome_that_is_none(tmp_path: Path) -> None:
    data = saved(tmp_path / "results.json", builder.case())
    data["checks"][0]["outcome"] = "FAILED"
    (tmp_path / "results.json").write_text(json.dumps(data))
    with pytest.raises(UserError, match=r'\$\.checks\[0\]\.outcome: "FAILED" is not one of passed'):
        results.read(tmp_path)


def test_case_that_occurs_twice(tmp_path: Path) -> None:
    saved(tmp_path / "results.json", builder.case(), builder.case())
    with pytest.raises(UserError, match="occurs twice"):
        results.read(tmp_path)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.json: No such file or directory"):
        results.read(tmp_path / "none.json")


def test_directory_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="file: is no directory; name another place"):
        results.write(builder.run(), tmp_path / "file" / "results.json")


def test_transcript_of_hostile_bytes() -> None:
    found = results.transcript(b"a\x1b[2Jb\r\n\xff\0<script>\r\nlast")
    assert found.lines == ["a\\x1b[2Jb", "\\xff\\x00<script>", "last"]
    assert found.size == 24


def test_transcript_without_an_end() -> None:
    assert len(results.transcript(b"x" * (1 << 20)).text) == 1 << 20
    lines = [str(number) for number in range(50)]
    assert results.transcript("\n\n".join(lines).encode()).tail == lines[-10:]
    assert len(results.transcript(b"\x1b" * (2 << 20)).text) < (1 << 20) + 100
    found = results.transcript(b"first\n" + b"x" * (3 << 20) + b"\nlast\n")
    assert found.size == (3 << 20) + 12
    assert len(found.text) < (1 << 20) + 100
    assert found.lines[0] == "first" and found.lines[-1] == "last"
    assert f"[… left out of {found.size} bytes: all but the beginning and the end …]" in found.lines


def test_guest_that_says_too_much(case: Case, tmp_path: Path) -> None:
    """Evidence and reasons of any size become results of a bounded one."""
    proven = prove(case, tmp_path / "run")
    assert proven.outcome is not None
    text = "".join(f"k{n} {'x' * 10_000}\n" for n in range(100)) + "k1 y\n" * 1000
    judgement = replace(proven.outcome.judgement, evidence=GuestEvidence(text, "p" * 10_000))
    other = replace(case, expect=Expectation(Verdict.BOOTED))
    outcome = replace(proven.outcome, judgement=judgement)
    flooded = replace(proven, case=other, outcome=outcome, reason=text)
    found = case_result(flooded, "again")
    assert len(found.evidence) == 64 and len(found.evidence["k1"]) == 64
    longest = [found.reason, found.problem or "", found.proof or "", *found.evidence["k0"]]
    assert all(len(item) == 4097 for item in longest)
    seen = outcome.observation
    assert seen.probe is not None
    probe = replace(seen.probe, differences=(Difference("rip.x", "0x1", text),), more=2)
    probed = replace(proven, outcome=replace(outcome, observation=replace(seen, probe=probe)))
    found = case_result(probed, "again")
    assert len(found.findings[0]) == 4097 and found.findings[1:] == ("2 more differences",)
    assert [register.name for register in found.registers if not register.agrees] == ["rip"]


def test_merging() -> None:
    first = builder.shard(1, builder.case(), started="2026-02-01T00:00:00Z")
    second = builder.shard(2, builder.failed(), seconds=2.5, complete=False)
    found = shards.merged([first, second], ["a", "b"])
    assert [item.case for item in found.cases] == [first.cases[0].case, second.cases[0].case]
    assert (found.started, found.seconds, found.complete) == (second.started, 15.0, False)
    with pytest.raises(UserError, match=r"b: x86_64-6\.1-elf-pvh-none is also in a"):
        shards.merged([first, first], ["a", "b"])


def test_a_shard_that_is_missing_is_an_error() -> None:
    first, last = builder.shard(1, builder.case(), of=3), builder.shard(3, builder.failed(), of=3)
    assert (first.headline, first.exit_code) == ("1 case as expected, shard 1/3", 0)
    found = shards.merged([last, first], ["c", "a"])
    assert [check.name for check in found.bad_checks] == ["shard 2/3"]
    assert not found.complete and found.run is not None and found.run.shard is None
    assert [check.name for check in shards.merged([last], ["c"]).bad_checks] == [
        "shard 1/3",
        "shard 2/3",
    ]
    alone = shards.merged([first], ["a"])
    assert [check.name for check in alone.bad_checks] == ["shard 2/3", "shard 3/3"]
    assert (alone.headline, alone.exit_code) == ("2 cannot be told, not complete", exitcode.USAGE)


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (builder.shard(2, of=3), "b: is no shard of the same run as a: shards: 3, not 2"),
        (builder.run(), "b: is no shard of the same run as a: shards: None, not 2"),
        (builder.run(run=None), "b: does not say which shard it is"),
        (builder.shard(1), "b: is shard 1/2, as is a"),
        (builder.shard(2, shared_id="42"), "b: is no shard of the same run as a: run id: 42, not"),
        (builder.shard(2, selected="ff" * 32), "cases selected (SHA-256): ffff"),
        (builder.shard(2, selection="matrix -k x"), "selection: matrix -k x, not ./bootproof"),
        (replace(builder.shard(2), bootproof="9"), "b: is of bootproof 9, a of 0.1.0"),
        (
            builder.shard(2, replace(builder.case("b"), kernel=Kernel("6.1", "cd" * 32, None))),
            "b: 6.1 is another kernel than in a: they are not of one run",
        ),
    ],
)
def test_what_is_not_of_one_run_is_not_merged(other: Results, said: str) -> None:
    with pytest.raises(UserError, match=re.escape(said)):
        shards.merged([builder.shard(1, builder.case()), other], ["a", "b"])


def test_two_whole_runs_are_not_one() -> None:
    with pytest.raises(UserError, match="a: is a whole run and no shard of one"):
        shards.merged([builder.run(builder.case()), builder.run(builder.failed())], ["a", "b"])


def test_a_run_of_nothing_is_no_success() -> None:
    assert (builder.run().headline, builder.run().exit_code) == ("Nothing was run", 125)
    assert builder.run().counts == "nothing"
    skipped = builder.run(checks=(Check("test_a.py::test_skipped", "skipped", "", 0.0),))
    assert (skipped.headline, skipped.exit_code) == ("Nothing was run", 125)
    cut = builder.run(builder.case(), complete=False)
    assert (cut.headline, cut.exit_code) == ("Not complete", exitcode.CANNOT_TELL)


# --- a stranger's --------------------------------------------------------------------------------


def test_a_strangers_words_are_those_that_we_would_have_written(tmp_path: Path) -> None:
    ugly = "a\x1b[2J\n::error::\u202eb\tc"
    case = builder.case(reason=ugly, evidence={ugly: (ugly,)}, findings=(ugly,))
    path = builder.saved(tmp_path / "results.json", case)
    [read] = results.read(Path(path)).cases
    shown = "a\\x1b[2J\\n::error::\\u202eb\tc"
    assert (read.reason, read.evidence, read.findings) == (shown, {shown: (shown,)}, (shown,))


def test_a_file_of_too_many_values_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    path.write_bytes(b"[" + b"[]," * 6_000_000 + b"0]")
    with pytest.raises(UserError, match="it holds 12000001 values, and more than 10000000 are"):
        results.read(path)
