"""`bootproof fetch`: what is said when kernels cannot be had."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from bootproof.harness import cli


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
