"""The pytest plugin and the matrix command over it: lines, table, results, exit codes."""

from __future__ import annotations

import json
import shlex
import subprocess
from pathlib import Path

import pytest
from _pytest.mark.expression import Expression

from bootproof.harness import exitcode
from bootproof.harness.cases.scenarios import read_scenarios
from bootproof.harness.guest.stages import Stage
from bootproof.harness.results import results
from bootproof.harness.results.results import Reference
from bootproof.harness.suite import matrix
from bootproof.harness.suite.items import reproduce
from bootproof.harness.suite.matrix import Selection, arguments
from bootproof.harness.suite.options import Keep, MatrixOptions
from bootproof.kernels.fetch import Fetcher
from tests import ROOT
from tests.builders import images as builder
from tests.builders.guests import X86Program
from tests.builders.processes import LOAD, python, vmlinux
from tests.harness.conftest import Matrix

CONFTEST = """
from bootproof.harness.inputs import images
images.busybox = lambda arch: b"no busybox"
pytest_plugins = ["bootproof.harness.plugin"]
"""
TESTS = """
import pytest
from bootproof.harness.case import Case, Expectation
from bootproof.harness.verdict import Verdict

CASES = [
    Case("x86_64", {kernel!r}, "elf", "linux64", memory=32 << 20,
        expect=Expectation(Verdict.CPU_RESET)),
    Case("x86_64", {kernel!r}, "elf", "linux64", 1 << 20, memory=32 << 20,
        expect=Expectation(Verdict.LOAD_REFUSED, code="Protocol::Refused")),
    Case("x86_64", {kernel!r}, "elf", "linux64", 0, memory=32 << 20),
]

@pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
def test_case(case, prove):
    prove(case)

def test_without_a_case():
    pass
"""


def run(directory: Path, *options: str, tests: str = TESTS) -> subprocess.CompletedProcess[str]:
    """pytest in a directory of its own, with the plugin as an installed one would be used."""
    (directory / "conftest.py").write_text(CONFTEST)
    kernel = directory / "vmlinux"
    kernel.write_bytes(vmlinux(X86Program(LOAD).reset()))
    (directory / "test_cases.py").write_text(tests.format(kernel=str(kernel)))
    words = ("-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "xdist", *options)
    return python(*words, cwd=directory)


def test_cases_as_pytest_tests(tmp_path: Path) -> None:
    """In two processes, whose results come together in one."""
    done = run(tmp_path, "-n", "2", f"--bootproof=out={tmp_path}/out", "--bootproof=keep=failed")
    assert (done.returncode, done.stderr) == (1, "")
    out = done.stdout
    assert "2 of 3 cases and 1 of 1 other tests as expected" in out
    assert "cpu-reset instead of booted: the CPU was reset at 0x1000" in out
    assert "reproduce: ./bootproof matrix -k " in out
    assert "Traceback" not in out
    found = json.loads((tmp_path / "out" / "results.json").read_text())
    assert (found["version"], found["complete"]) == (2, True)
    verdicts = {row["claim"]: (row["verdict"], row["problem"] is None) for row in found["cases"]}
    assert sorted(verdicts.values()) == [
        ("cpu-reset", False),
        ("cpu-reset", True),
        ("load-refused", True),
    ]
    # Guest RAM is kept of the case that failed, and of no other.
    kept = [path.parent.name for path in (tmp_path / "out").glob("*/ram.img")]
    assert len(kept) == 1 and kept[0].endswith("linux64-+0")


GENERATED = """
import sys
from pathlib import Path
from bootproof.harness.inputs import images
from bootproof.harness.suite import matrix
from bootproof.harness.suite.options import MatrixOptions
from bootproof.harness.case import Case, Expectation
from bootproof.harness.verdict import Verdict

images.busybox = lambda arch: b"no busybox"
matrix.fetch_for = lambda cases: None
case = Case("x86_64", sys.argv[1], "elf", "linux64", memory=32 << 20)
refused = Expectation(Verdict.LOAD_REFUSED)
cases = [case, Case("x86_64", sys.argv[1], "elf", "linux64", 1 << 20, expect=refused)]
out = Path(sys.argv[2])
sys.exit(matrix.run_cases(cases, matrix.Selection(MatrixOptions(out, command="bootproof mine"))))
"""


def test_generated_cases(tmp_path: Path) -> None:
    """Cases of a program run as the matrix does, and nothing beside their file is executed."""
    kernel, out = tmp_path / "vmlinux", tmp_path / "out"
    kernel.write_bytes(vmlinux(X86Program(LOAD).reset()))
    out.mkdir()
    (out / "conftest.py").write_text("raise SystemExit('conftest.py was executed')")
    (out / "pytest.ini").write_text("[pytest]\naddopts = --no-such-option")
    job = {"GITHUB_ACTIONS": "true"}
    done = python("-c", GENERATED, kernel, out, cwd=tmp_path, env=job)
    assert (done.returncode, done.stderr) == (1, "")
    assert "1 of 2 cases as expected" in done.stdout
    assert "cpu-reset instead of booted: the CPU was reset at 0x1000" in done.stdout
    assert "reproduce: bootproof mine -k " in done.stdout
    assert "\n::error title=x86_64-" in done.stdout
    assert "Traceback" not in done.stdout


def test_suite_without_cases_sees_nothing_of_the_plugin(tmp_path: Path) -> None:
    done = run(tmp_path, "-k", "without_a_case")
    assert done.returncode == 0
    assert "cases as expected" not in done.stdout
    assert not (tmp_path / "build").exists()


def test_arguments() -> None:
    selection = Selection(
        MatrixOptions(Path("/out"), Keep.FAILED, jobs=4), expression="pvh", stop_at_first=True
    )
    words = arguments(selection)
    assert words[0] == str(ROOT / "scenarios")
    assert {"--bootproof=out=/out", "--bootproof=keep=failed", "-x"} <= set(words)
    assert words[words.index("-k") + 1] == "pvh"
    assert "--bootproof=jobs=4" in words
    assert "--collect-only" not in words


@pytest.mark.parametrize(("pytests", "ours"), [(0, 0), (1, 1), (2, 2), (3, 2), (4, 2), (99, 2)])
def test_exit_codes(pytests: int, ours: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pytest, "main", lambda _words, plugins: pytests)
    assert matrix.run(Selection(MatrixOptions(Path("/out"), list_only=True))) == ours


@pytest.mark.parametrize(
    ("expression", "code"), [("pvh and (", 2), ("no such case", 2), ("linux64-none", 0)]
)
def test_selection(expression: str, code: int, matrix_here: Matrix) -> None:
    done = matrix_here("--list", "-k", expression)
    assert done.returncode == code
    assert "Traceback" not in done.stdout + done.stderr


def test_a_list_of_what_cannot_be_read_is_none(
    matrix_here: Matrix, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It would lack what is in that file, and end as if that were all."""
    scenarios = tmp_path / "scenarios"
    scenarios.mkdir()
    (scenarios / "test_broken.py").write_text("import nothing_of_that_name\n")
    (scenarios / "test_whole.py").write_text("def test_whole(): pass\n")
    monkeypatch.setattr(matrix, "SCENARIOS", scenarios)
    done = matrix_here("--list")
    why = "test_broken.py:1: ModuleNotFoundError: No module named 'nothing_of_that_name'"
    assert (done.returncode, done.stdout.strip()) == (2, "")
    assert done.stderr.endswith(f"scenarios/{why}\n") and done.stderr.count("\n") == 1
    (scenarios / "test_broken.py").write_text("\n\ndef test_x(:\n")
    done = matrix_here("--list")
    assert done.stderr.endswith("scenarios/test_broken.py:3: SyntaxError: invalid syntax\n")


ENDS = """
import pytest
def test_ok(): pass
def test_fails(): assert False
def test_raises(): raise OSError("x")
@pytest.mark.skip(reason="why not")
def test_skipped(): pass
@pytest.mark.xfail(reason="known")
def test_xfails(): assert False
@pytest.fixture
def broken(): raise OSError("set-up")
def test_set_up(broken): pass
@pytest.fixture
def left():
    yield
    raise OSError("tear-down")
def test_tear_down(left): pass
def test_fails_and_tear_down(left): assert False
"""


def test_each_test_counts_once_whatever_becomes_of_it(
    matrix_here: Matrix, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """In the last line as in results.json, and without a letter of pytest's."""
    (tmp_path / "scenarios").mkdir()
    (tmp_path / "scenarios" / "test_ends.py").write_text(ENDS)
    monkeypatch.setattr(matrix, "SCENARIOS", tmp_path / "scenarios")
    monkeypatch.setattr(Fetcher, "fetch", lambda *_names: [])
    done = matrix_here("--out", str(tmp_path / "out"))
    assert done.returncode == 1
    assert "\n1 of 6 tests as expected in " in done.stdout
    assert " s: 2 not as expected, 3 cannot be told; 2 skipped\n" in done.stdout
    lines = [line for line in done.stdout.splitlines() if "/8]" in line]
    assert [line.split()[0] for line in lines] == [f"[{number}/8]" for number in range(1, 9)]
    found = results.read(tmp_path / "out").checks
    assert {check.name.partition("::test_")[2]: check.outcome for check in found} == {
        "ok": "passed",
        "fails": "failed",
        "raises": "error",
        "set_up": "error",
        "skipped": "skipped",
        "xfails": "skipped",
        "tear_down": "error",
        "fails_and_tear_down": "failed",
    }
    texts = [check.text for check in found if check.outcome == "skipped"]
    assert texts == ["Skipped: why not", "failed, as it is known to: known"]


PROVES = """
from bootproof.harness.case import Case, Expectation
from bootproof.harness.verdict import Verdict

def case(offset, verdict):
    expect = Expectation(verdict)
    return Case("x86_64", {kernel!r}, "elf", "linux64", offset, memory=32 << 20, expect=expect)

def test_fails_after_its_case(prove):
    prove(case(1 << 20, Verdict.LOAD_REFUSED))
    assert False, "of something else"

def test_fails_with_its_case(prove):
    prove(case(3 << 20, Verdict.BOOTED))
"""


def test_a_case_that_is_as_expected_hides_no_failure_of_its_test(
    matrix_here: Matrix, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """And one that is not is told once."""
    kernel = tmp_path / "vmlinux"
    kernel.write_bytes(vmlinux(X86Program(LOAD).reset()))
    (tmp_path / "scenarios").mkdir()
    (tmp_path / "scenarios" / "test_proves.py").write_text(PROVES.format(kernel=str(kernel)))
    monkeypatch.setattr(matrix, "SCENARIOS", tmp_path / "scenarios")
    monkeypatch.setattr(Fetcher, "fetch", lambda *_names: [])
    done = matrix_here("--out", str(tmp_path / "out"))
    assert "\n1 of 2 cases and 0 of 1 other tests as expected in " in done.stdout
    (check,) = results.read(tmp_path / "out").checks
    assert (check.outcome, check.of_case) == ("failed", False)
    assert "of something else" in check.text


CLAIMS = """
[[claim]]
name = "one"
why = "because"
arch = "x86_64"
kernel = "./vmlinux"
format = "elf"
protocol = "linux64"
"""


def one_line_of(directory: Path, matrix: Matrix, *words: str) -> str:
    """What `bootproof matrix` says of a mistake, with a kernel that would run."""
    (directory / "vmlinux").write_bytes(builder.elf(builder.load(16 << 20, b"\xf4")))
    (directory / "claims.toml").write_text(CLAIMS)
    done = matrix(f"--scenarios={directory}/claims.toml", *words)
    assert done.returncode == 2
    (line,) = (line for line in done.stderr.splitlines() if line)
    assert "case" not in done.stdout.replace("no case", "")
    return line


def test_a_directory_that_is_none_is_refused_before_anything_runs(
    tmp_path: Path, matrix_here: Matrix
) -> None:
    for name in ("vmlinux", "vmlinux/out"):
        assert one_line_of(tmp_path, matrix_here, f"--out={tmp_path}/{name}") == (
            f"bootproof: {tmp_path}/vmlinux: is no directory; name another place for what is to be"
            " written"
        )


def test_no_emulator_is_said_once_and_before_anything_runs(
    tmp_path: Path, matrix_here: Matrix, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("BOOTPROOF_QEMU_X86_64", "none")
    said = one_line_of(tmp_path, matrix_here, f"--out={tmp_path}/out")
    assert said == "bootproof: QEMU for x86_64 is switched off by BOOTPROOF_QEMU_X86_64=none"
    assert [path.name for path in (tmp_path / "out").iterdir()] == [".pytest_cache"]


@pytest.mark.parametrize("words", ["-k absent", "--arch riscv64", "--kernel-name absent", "--lf"])
def test_an_empty_selection_is_the_same_listed_and_run(
    words: str, tmp_path: Path, matrix_here: Matrix
) -> None:
    """One line, and 2; whichever way it was asked for."""
    (tmp_path / "vmlinux").write_bytes(builder.elf(builder.load(16 << 20, b"\xf4")))
    (tmp_path / "claims.toml").write_text(CLAIMS)
    asked = [f"--scenarios={tmp_path}/claims.toml", f"--out={tmp_path}/out", *words.split()]
    ran = [matrix_here(*asked, *way) for way in ([], ["--list"], ["--dry-run"])]
    assert [done.returncode for done in ran] == [2, 2, 2]
    said = {done.stderr.strip() for done in ran}
    by = f"{words} (nothing of it failed the last time)" if words == "--lf" else words
    told = "`bootproof matrix --list` shows what there is"
    assert said == {f"bootproof: no case is selected by {by}; {told}"}


def test_nothing_selected_is_said(tmp_path: Path, matrix_here: Matrix) -> None:
    said = one_line_of(tmp_path, matrix_here, f"--out={tmp_path}/out", "-k", "absent")
    assert said == (
        "bootproof: no case is selected by -k absent; `bootproof matrix --list` shows what there is"
    )
    words = (f"--out={tmp_path}/out", "--lf", "--offset", "3M", "--offset", "5M")
    assert "by --offset 3M and --offset 5M and --lf (nothing of it failed" in one_line_of(
        tmp_path, matrix_here, *words
    )


@pytest.mark.parametrize("jobs", ["1", "2"])
def test_a_shard_that_is_empty_is_said(jobs: str, tmp_path: Path, matrix_here: Matrix) -> None:
    words = (f"--out={tmp_path}/out", "-n", jobs, "--shard")
    of_200 = [one_line_of(tmp_path, matrix_here, *words, f"{number}/200") for number in (100, 101)]
    assert of_200 == [
        f"bootproof: --shard {number}/200: is empty: there is 1 case for 200 shards; make at most 1"
        for number in (100, 101)
    ]
    assert not (tmp_path / "out" / "results.json").exists()


def test_reproduce_selects_its_case_and_no_other() -> None:
    """Every claim's id, as an expression, matches itself alone: evaluated by pytest itself."""
    files = sorted((ROOT / "scenarios").glob("*.toml"))
    found = [claimed for path in files for claimed in read_scenarios(path)]
    cases = [claimed.case for claimed in found]
    names = [f"{claimed.claim}[{claimed.case.id}]" for claimed in found]
    assert len({case.id for case in cases}) == len(cases) > 150
    for name in names:
        expression = Expression.compile(shlex.split(reproduce(name, "bootproof matrix"))[-1])
        assert [other for other in names if expression.evaluate(_Named(other))] == [name]


class _Named:
    """What `-k` asks: is the word in the test's name?"""

    def __init__(self, name: str) -> None:
        self._name = name.lower()

    def __call__(self, word: str, /, **_: str | int | bool | None) -> bool:
        return word.lower() in self._name


# --- reports -----------------------------------------------------------------------------------


def test_reports_beside_the_run_directories(tmp_path: Path) -> None:
    done = run(tmp_path, "-p", "no:xdist", f"--bootproof=out={tmp_path}/out", "-k", "case")
    assert done.returncode == 1
    found = results.read(tmp_path / "out")
    assert (len(found.cases), found.complete, found.success) == (3, True, False)
    (check,) = found.checks  # the test without a case
    assert (check.name, check.outcome) == ("test_cases.py::test_without_a_case", "passed")
    for name in ("report.html", "junit.xml"):
        assert found.cases[0].claim in (tmp_path / "out" / name).read_text()


def test_reference_boot_of_a_test_is_in_the_results(tmp_path: Path) -> None:
    """As scenarios/test_reference.py hands it over; also out of another process."""
    text = (
        TESTS
        + """
def test_beside_another(request):
    from bootproof.harness.suite.case_result import reference_result
    from bootproof.harness.compare.comparison import Cost
    from bootproof.harness.suite.options import REFERENCE_PROPERTY
    from bootproof.harness.guest.stages import Stage
    from bootproof.harness.typedjson import to_json
    found = reference_result(Cost("booted", "pvh", 9, (Stage("entry", 7, None),)))
    value = {{"case": CASES[0].id, "reference": to_json(found)}}
    request.node.user_properties.append((REFERENCE_PROPERTY, value))
"""
    )
    words = (
        "-n",
        "2",
        f"--bootproof=out={tmp_path}/out",
        "-k",
        "test_case and not linux64-+0 or beside",
    )
    assert run(tmp_path, *words, tests=text).returncode == 0
    ((case, reference),) = results.read(tmp_path / "out").references.items()
    assert case.endswith("elf-linux64-none")
    assert reference == Reference(9, (Stage("entry", 7, None),))


def test_baseline(tmp_path: Path) -> None:
    """The same again is the same; one instruction less in the baseline is noticed and fails."""
    options = ("-n", "2", f"--bootproof=out={tmp_path}/out", "-k", "test_case and not linux64-+0")
    assert run(tmp_path, *options).returncode == 0
    baseline = tmp_path / "baseline.json"
    (tmp_path / "out" / "results.json").rename(baseline)
    alone = options[2:]  # what is compared came from one process or from another
    again = run(tmp_path, *alone, f"--bootproof=baseline={baseline}")
    assert again.returncode == 0
    assert "2 cases compared with the run before: 2 same" in again.stdout

    data = json.loads(baseline.read_text())
    ran = next(case for case in data["cases"] if case["instructions"])
    ran["instructions"] -= 1
    baseline.write_text(json.dumps(data))
    other = run(tmp_path, *alone, f"--bootproof=baseline={baseline}", "--bootproof=ktap=true")
    assert other.returncode == 1
    assert f"✗ not deterministic: {ran['case']}" in other.stdout
    assert f" {ran['case']} # not deterministic since the run before: " in other.stdout
    assert 'failures="1"' in (tmp_path / "out" / "junit.xml").read_text()
    assert "1 not as expected" in (tmp_path / "out" / "report.html").read_text()

    ran["key"]["cpu"] = "another"
    baseline.write_text(json.dumps(data))
    refused = run(tmp_path, *alone, f"--bootproof=baseline={baseline}")
    assert refused.returncode == pytest.ExitCode.USAGE_ERROR
    assert "the runs cannot be compared: CPU model: another then, qemu64" in refused.stdout


def test_baseline_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "b.json").write_text("{}")
    done = run(tmp_path, f"--bootproof=baseline={tmp_path}/b.json")
    assert done.returncode == pytest.ExitCode.USAGE_ERROR
    assert done.stderr == (
        f"ERROR: {tmp_path}/b.json: no results that can be read:"
        " $.format: is not 'bootproof results': another program's file\n\n"
    )


def test_stopped_at_the_first_failure(tmp_path: Path) -> None:
    """What did not run is not counted as good."""
    (tmp_path / "reversed_order.py").write_text(
        "def pytest_collection_modifyitems(items): items.reverse()\n"
    )
    done = run(
        tmp_path, "-p", "no:xdist", "-x", f"--bootproof=out={tmp_path}/out", "-p", "reversed_order"
    )
    assert ": 1 not as expected, not complete" in done.stdout
    assert not results.read(tmp_path / "out").complete


def test_ktap_has_stdout_for_itself(tmp_path: Path) -> None:
    kernel, out = tmp_path / "vmlinux", tmp_path / "out"
    kernel.write_bytes(vmlinux(X86Program(LOAD).reset()))
    script = GENERATED.replace("(out, ", "(out, jobs=2, ktap=True, ")
    assert script != GENERATED
    done = python("-c", script, kernel, out, cwd=tmp_path)
    assert done.returncode == 1
    lines = done.stdout.splitlines()
    assert lines[:2] == ["KTAP version 1", "1..2"]
    told = [line.split(" ")[0] for line in lines[2:] if not line.startswith("# ")]
    assert sorted(told) == ["not", "ok"]
    assert "1 of 2 cases as expected" in done.stderr


REBUILT = """
from pathlib import Path
from bootproof.harness.case import Case, Expectation
from bootproof.harness.verdict import Verdict

def case(offset):
    expect = Expectation(Verdict.CPU_RESET)
    return Case("x86_64", {kernel!r}, "elf", "linux64", offset, memory=32 << 20, expect=expect)

def test_one(prove):
    prove(case(None))

def test_another(prove):
    path = Path({kernel!r})
    path.write_bytes(path.read_bytes() + b"x")
    prove(case(0))
"""


def test_a_kernel_that_is_replaced_meanwhile_is_an_error(tmp_path: Path) -> None:
    """Each case is of what it says, but the run is of no one kernel."""
    out = f"--bootproof=out={tmp_path}/out"
    assert run(tmp_path, out, tests=REBUILT).returncode == 0  # a suite may do as it likes
    done = run(tmp_path, out, "--bootproof=lines=True", tests=REBUILT)
    assert done.stderr == ""
    read = results.read(tmp_path / "out")
    assert [case.verdict for case in read.cases] == ["cpu-reset", "cpu-reset"]
    [check] = read.bad_checks
    assert read.exit_code == exitcode.USAGE
    assert (check.outcome, check.text.count("SHA-256")) == ("error", 1)
    assert "was replaced while its cases ran" in check.text
