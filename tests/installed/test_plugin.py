"""The pytest plugin in somebody else's repository: the documented example, and suites without."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests import ROOT
from tests.installed.conftest import Environment

pytestmark = pytest.mark.installed

GUIDE = ROOT / "docs" / "testing-your-loader.md"
# Stands for the user's VMM: the boot image of our own loader.
MY_VMM = """
import subprocess
import sys


def write_boot_image(kernel, directory):
    words = ["-m", "bootproof", "image", str(kernel), "--out", str(directory)]
    subprocess.run([sys.executable, *words], check=True)
"""


@pytest.fixture
def suite(installed: Environment, tmp_path: Path) -> Environment:
    """A repository of somebody else's, with the installed bootproof."""
    (tmp_path / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\naddopts = -ra\n")
    return Environment(installed.path, tmp_path)


def test_the_documented_example(suite: Environment) -> None:
    (example,) = re.findall(r"```python\n(.*?)```", GUIDE.read_text("utf-8"), re.DOTALL)
    (suite.cwd / "test_boot.py").write_text(example)
    (suite.cwd / "my_vmm.py").write_text(MY_VMM)
    kernel = suite.cwd / "arch" / "x86" / "boot" / "bzImage"
    kernel.parent.mkdir(parents=True)
    where = "bootproof.harness.inputs.images"
    find = f"from {where} import kernel_file as k; print(k('6.1-cloud-amd64').path)"
    kernel.symlink_to(suite.must("python", "-c", find).strip())
    assert "2 passed" in suite.must("pytest", "-q", "-n", "2")


def test_a_failing_boot_shows_its_reason_and_run_directory(suite: Environment) -> None:
    (suite.cwd / "test_boot.py").write_text(
        "def test_it(boot):\n"
        "    result = boot('6.1-cloud-amd64', protocol='pvh', memory='48M')\n"
        "    assert result.verdict == 'booted', result\n"
    )
    said = suite.run("pytest", "-q")
    assert said.returncode == 1
    assert "AssertionError: load-refused: " in said.stdout
    assert "run directory " in said.stdout


def test_a_test_that_talks_to_its_guest(suite: Environment) -> None:
    (suite.cwd / "test_talk.py").write_text(
        "def test_it(start_guest):\n"
        "    guest = start_guest('6.1-cloud-amd64', profile='fast')\n"
        "    guest.expect('guest# ')\n"
        "    guest.sendline('uname -m')\n"
        "    guest.expect('x86_64\\n')\n"
        "    guest.sendline('exit')\n"
        "    assert guest.wait().verdict == 'booted'\n"
    )
    assert "1 passed" in suite.must("pytest", "-q")


def test_mistakes_are_one_line(suite: Environment) -> None:
    (suite.cwd / "test_boot.py").write_text(
        "def test_name(kernel):\n    kernel('6.66')\n"
        "def test_size(boot):\n    boot('6.1-cloud-amd64', memory='much')\n"
    )
    said = suite.run("pytest", "-q")
    assert said.returncode == 1
    assert "bootproof: 6.66: no such file" in said.stdout
    assert "bootproof: memory: 'much' is neither a size nor an address" in said.stdout
    assert "Traceback" not in said.stdout
    assert "fixtures.py" not in said.stdout


def test_a_suite_that_does_not_use_it_notices_nothing(suite: Environment) -> None:
    """No option, no module, and its own `loader` and `kernel` are its own."""
    (suite.cwd / "loader.py").write_text("MINE = True\n")
    (suite.cwd / "test_own.py").write_text(
        "import sys\n\nimport loader\nimport pytest\n\n\n"
        "@pytest.fixture\ndef kernel():\n    return 'mine'\n\n\n"
        "def test_it(kernel):\n"
        "    assert loader.MINE and kernel == 'mine'\n"
        "    ours = {n for n in sys.modules if n.partition('.')[0] == 'bootproof'}\n"
        "    fixtures = {'bootproof.harness', 'bootproof.harness.fixtures'}\n"
        "    assert ours == {'bootproof', 'bootproof.dataclass', *fixtures}\n"
    )
    assert "1 passed" in suite.must("pytest", "-q")
    assert "bootproof" not in suite.must("pytest", "--help")
