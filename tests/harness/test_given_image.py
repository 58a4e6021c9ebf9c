"""A boot image of another program as a case: what it says, and what its guest has to prove."""

from __future__ import annotations

from pathlib import Path

import pytest

from bootproof.harness import given_image
from bootproof.harness.cases import of_image
from bootproof.harness.errors import UserError
from bootproof.harness.expected import Expected, ExpectedHandover
from bootproof.harness.verdict import Verdict
from bootproof.loader import bootimage
from bootproof.loader.bootimage import BootImage
from bootproof.loader.memory import GuestMemory
from bootproof.loader.protocols.table import PROTOCOLS
from tests.builders import handover
from tests.builders.guests import machine

NONCE = "0123456789abcdef0123456789abcdef"
OURS = f"console=ttyS0 rdinit=/bootproof/init bootproof.nonce={NONCE}"
OTHERS = f"console=ttyS0 bootproof.guest={NONCE}"
EACH = pytest.mark.parametrize("protocol", PROTOCOLS)


@pytest.fixture
def image(tmp_path: Path, protocol: str, cmdline: str) -> Path:
    """The directory of a right hand-over by a protocol, with a command line."""
    banks = [(handover.base(protocol), handover.SIZE)]
    with GuestMemory(banks, path=tmp_path / bootimage.RAM) as memory:
        made = handover.prepare(protocol, memory, cmdline.encode())
        arch = PROTOCOLS[protocol].arch.name
        image = BootImage(arch, protocol, memory.banks, (made.registers,), made.regions)
        bootimage.save(image, tmp_path)
    return tmp_path


@EACH
@pytest.mark.parametrize(
    ("cmdline", "wanted"),
    [
        ("console=ttyS0", Verdict.HANDED_OVER),
        (OURS, Verdict.BOOTED),
        (OTHERS, Verdict.BOOTED),
        (f"{OURS} rdinit=/init", Verdict.HANDED_OVER),
    ],
)
def test_an_image_says_all_of_its_case_but_the_machine(
    protocol: str, image: Path, wanted: Verdict
) -> None:
    case = of_image.case_of(image, {"cpu": "max"}, kernel="bzImage")
    assert (case.arch, case.protocol) == (PROTOCOLS[protocol].arch.name, protocol)
    assert (case.memory, case.smp, case.cpu) == (handover.SIZE, 1, "max")
    assert (case.boot_image, case.kernel_path) == (str(image), "bzImage")
    assert case.expect.verdict is wanted
    only = of_image.case_of(image, {"only_handover": True})
    assert only.expect.verdict is Verdict.HANDED_OVER


@EACH
@pytest.mark.parametrize("cmdline", [OURS, OTHERS, "console=ttyS0"])
def test_a_guest_is_held_against_the_mode_that_it_is_entered_in(
    protocol: str, image: Path, cmdline: str
) -> None:
    """As those of our own loader are; of one that is no Linux nobody knows what it logs."""
    case = of_image.case_of(image, {})
    with given_image.opened(image) as given:
        expected = given_image.expected(case, given, machine(case.arch))
        mode = given.image.cpus[0].mode
    if cmdline == "console=ttyS0":
        assert isinstance(expected, ExpectedHandover)
        return
    assert isinstance(expected, Expected)
    assert (expected.cmdline, expected.nonce) == (cmdline, NONCE)
    assert (expected.mode, expected.other) == ((mode, False) if cmdline == OURS else (None, True))


@pytest.mark.parametrize("protocol", ["linux64"])
@pytest.mark.parametrize("cmdline", ["console=ttyS0 quiet"])
@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"until": "login:", "only_handover": True}, "--until: with --only-handover the guest"),
        (
            {"fail_on_complaints": True, "only_handover": True},
            "--fail-on-complaints: with --only-handover the kernel says nothing",
        ),
        ({"until": "quiet"}, "--until: 'quiet' stands in the guest's own command line"),
        ({"until": ""}, "until: is empty"),
        ({"memory": "1G"}, "boot.json: $.banks: 24 MiB of RAM, but 1 GiB was asked"),
    ],
)
def test_what_cannot_be_asked_of_an_image_is_one_line(
    words: dict[str, object], said: str, image: Path
) -> None:
    with pytest.raises(UserError) as caught:
        of_image.case_of(image, words)
    assert said in str(caught.value)
