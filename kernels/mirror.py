"""Which Debian mirror this machine should use when nobody says.

Owns the reading of apt's source lists (sources.list(5): one-line and deb822 style). Must not open a
connection, and knows no host name: what is not told is read from the machine.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

from bootproof.dataclass import dataclass
from bootproof.kernels.errors import MirrorUnknown

ENVIRONMENT = "BOOTPROOF_MIRROR"
# Suites of the archive itself. Others (-updates, -security, third parties) come from trees that
# need not hold the kernels of the catalogue. A running Debian's own codename is added to these.
_SUITES = [
    "bullseye",
    "bookworm",
    "trixie",
    "forky",
    "duke",
    "sid",
    "oldoldstable",
    "oldstable",
    "stable",
    "testing",
    "unstable",
]


@dataclass(frozen=True, slots=True)
class Source:
    """One address in one entry of apt's sources, and the suites and components taken from it."""

    uri: str
    suites: tuple[str, ...]
    components: tuple[str, ...]


def find_mirror(
    option: str | None = None,
    *,
    apt: Path = Path("/etc/apt"),
    os_release: Path = Path("/etc/os-release"),
) -> str:
    """The mirror's root without a trailing slash: `option`, else $BOOTPROOF_MIRROR, else apt's own.

    Raises `MirrorUnknown`, naming the option, when nothing usable is found.
    """
    if chosen := option or os.environ.get(ENVIRONMENT):
        if urlsplit(chosen).scheme not in ("http", "https"):
            raise MirrorUnknown(
                f'"{chosen}" is not a mirror: give the http:// or https:// address of a Debian'
                " archive, the directory that holds dists/ and pool/"
            )
        return chosen.rstrip("/")
    system = _os_release(os_release)
    suites = set(_SUITES)
    if system.get("ID") == "debian":
        suites.add(system.get("VERSION_CODENAME", "sid"))
    candidates = [s for s in apt_sources(apt) if _is_archive(s, suites)]
    for source in candidates:
        if (address := _http(source.uri)) is not None:
            return address.rstrip("/")
    name = system.get("PRETTY_NAME", "this system")
    why = (
        f"the apt sources of this machine ({name}) name the Debian archive only as"
        f" {urlsplit(candidates[0].uri).scheme}:…, which is not understood here"
        if candidates
        else f"the apt sources of this machine ({name}) name no Debian archive"
    )
    raise MirrorUnknown(f"{why}; name a mirror with --mirror URL or {ENVIRONMENT}")


def apt_sources(apt: Path) -> Iterator[Source]:
    """Every enabled binary source, in apt's own order. Unreadable files are passed over."""
    folder = apt / "sources.list.d"
    parts = sorted(folder.iterdir()) if folder.is_dir() else []
    for path in [apt / "sources.list", *parts]:
        try:
            text = path.read_text("utf-8", errors="replace")
        except OSError:
            continue
        if path.suffix == ".list":
            yield from _one_line(text.splitlines())
        elif path.suffix == ".sources":
            yield from _deb822(text)


def _one_line(lines: Iterable[str]) -> Iterator[Source]:
    for line in lines:
        match = re.match(r"\s*deb\s+(?:\[[^]]*\]\s*)?(\S+)\s+(\S+)\s*([^#]*)", line)
        if match:
            yield Source(match[1], (match[2],), tuple(match[3].split()))


def _deb822(text: str) -> Iterator[Source]:
    from debian.deb822 import Deb822

    for stanza in Deb822.iter_paragraphs(text.splitlines()):
        if stanza.get("Enabled", "yes").strip().lower() in ("no", "false", "0", "off", "without"):
            continue
        if "deb" in stanza.get("Types", "").split():
            suites, components = stanza.get("Suites", ""), stanza.get("Components", "")
            for uri in stanza.get("URIs", "").split():
                yield Source(uri, tuple(suites.split()), tuple(components.split()))


def _is_archive(source: Source, suites: set[str]) -> bool:
    return "main" in source.components and not suites.isdisjoint(source.suites)


def _http(uri: str) -> str | None:
    """`uri`, or the first address in the file that mirror+file: names; None for other schemes."""
    scheme, _, rest = uri.partition(":")
    if scheme in ("http", "https"):
        return uri
    if scheme != "mirror+file":
        return None
    try:
        lines = Path("/" + rest.lstrip("/")).read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError):
        return None
    return next((line.split()[0] for line in lines if line.startswith(("http:", "https:"))), None)


def _os_release(path: Path) -> dict[str, str]:
    try:
        lines = path.read_text("utf-8", errors="replace").splitlines()
    except OSError:
        return {}
    pairs = (line.partition("=") for line in lines if "=" in line)
    return {key.strip(): value.strip().strip("\"'") for key, _, value in pairs}
