"""Is this InRelease what the archive's keyholders signed? (RFC 9580 section 7, checked by gpgv(1))

Owns the running of gpgv and the choice of keyring. Hands back the signed text only: whatever stands
around it in the file was never vouched for. Must not know where the file came from.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

from bootproof.dataclass import dataclass
from bootproof.kernels import scratch
from bootproof.kernels.errors import BadSignature

ENVIRONMENT = "BOOTPROOF_KEYRING"
KEYRINGS = (
    Path("/usr/share/keyrings/debian-archive-keyring.gpg"),
    Path("/usr/share/keyrings/debian-archive-keyring.pgp"),
)


@dataclass(frozen=True, slots=True)
class SignedText:
    """The text under the signature. `unchecked` says why nobody vouches for it, else None."""

    text: str
    unchecked: str | None


def default_keyring() -> Path | None:
    """$BOOTPROOF_KEYRING, else the Debian archive keyring where the system has it."""
    if chosen := os.environ.get(ENVIRONMENT):
        return Path(chosen)
    return next((path for path in KEYRINGS if path.is_file()), None)


def check_signature(signed: bytes, keyring: Path | None) -> SignedText:
    """The text of a clear-signed file, checked when gpgv and a keyring are there.

    Raises `BadSignature` when they are there and no key of the ring made a good signature, or any
    signature is bad.
    """
    gpgv = shutil.which("gpgv")
    if gpgv is None:
        return SignedText(_strip_armour(signed), "gpgv is not installed (Debian package gpgv)")
    if keyring is None:
        return SignedText(
            _strip_armour(signed),
            "there is no Debian keyring (Debian package debian-archive-keyring)",
        )
    if not keyring.is_file():
        raise BadSignature(f"the keyring {keyring} does not exist; correct {ENVIRONMENT}")
    status, text, message = _run_gpgv(gpgv, signed, keyring)
    if "GOODSIG" in status and "VALIDSIG" in status and "BADSIG" not in status:
        return SignedText(text, None)
    raise BadSignature(
        f"no good signature by a key of {keyring} ({message}); if the system is old, update its"
        f" package debian-archive-keyring, or name another keyring in {ENVIRONMENT};"
        " else do not trust this mirror"
    )


def _run_gpgv(gpgv: str, signed: bytes, keyring: Path) -> tuple[set[str], str, str]:
    """The status keywords, the signed text, and what gpgv told people, in one line."""
    with scratch.directory() as folder:
        text = Path(folder) / "text"
        argv: Sequence[str | Path] = (
            gpgv,
            *("--homedir", folder, "--status-fd", "1", "--keyring", keyring.absolute()),
            *("--output", text),
        )
        run = subprocess.run(
            argv, input=signed, capture_output=True, env=os.environ | {"LC_ALL": "C"}, check=False
        )
        lines = run.stdout.decode("utf-8", "replace").splitlines()
        keywords = {line.split()[1] for line in lines if line.startswith("[GNUPG:] ")}
        told = run.stderr.decode("utf-8", "replace").strip().splitlines() or ["gpgv says nothing"]
        signed_text = text.read_text("utf-8", "replace") if text.exists() else ""
    return keywords, signed_text, told[-1].removeprefix("gpgv: ").strip()


def _strip_armour(signed: bytes) -> str:
    """The text between the clear-signature lines, or everything where there are none."""
    text = signed.decode("utf-8", "replace")
    _, begin, rest = text.partition("-----BEGIN PGP SIGNED MESSAGE-----\n")
    if not begin:
        return text
    body = rest.partition("\n\n")[2].partition("-----BEGIN PGP SIGNATURE-----")[0]
    return "\n".join(line.removeprefix("- ") for line in body.splitlines())
