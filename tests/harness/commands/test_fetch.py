"""`bootproof fetch`: what is said when kernels cannot be had."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from bootproof.harness import cli
from bootproof.kernels.catalog import load_catalog


class _Empty(BaseHTTPRequestHandler):
    """A mirror that has nothing."""

    def do_GET(self) -> None:
        self.send_error(404)

    def log_message(self, *_: object) -> None:
        pass


def test_each_kernel_that_cannot_be_had_is_a_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("BOOTPROOF_CACHE", str(tmp_path))
    with HTTPServer(("127.0.0.1", 0), _Empty) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        mirror = f"http://127.0.0.1:{server.server_port}/debian"
        names = ["6.1-cloud-amd64", "6.12-cloud-amd64"]
        assert cli.main(["fetch", "--locked", *names, "--mirror", mirror]) == 2
        server.shutdown()
    said = capsys.readouterr().err
    assert "\\n" not in said
    lines = [line for line in said.splitlines() if line.startswith("bootproof: 6.1")]
    assert [line.split(":")[1].strip() for line in lines] == names


def test_a_list_has_no_names(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["fetch", "--list", "6.1-cloud-amd64"]) == 2
    assert capsys.readouterr().err == (
        "bootproof: --list: shows all that there is: leave out the names\n"
    )


@pytest.mark.parametrize("terminal", [False, True])
def test_no_name_of_the_catalogue_is_cut(
    terminal: bool, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """They are what has to be typed, on a narrow terminal and behind a pipe."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("TERM", "dumb")
    monkeypatch.setenv("FORCE_COLOR" if terminal else "NO_COLOR", "1")
    assert cli.main(["fetch", "--list"]) == 0
    said = capsys.readouterr().out
    assert "…" not in said and ("SUITE" in said) != terminal
    assert {entry.name for entry in load_catalog()} <= {*said.split()}
    assert terminal or len(said.splitlines()) == 1 + len([*load_catalog()])
