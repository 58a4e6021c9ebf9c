"""The fixtures for other suites, up to where a guest would start; guests: tests/installed."""

from __future__ import annotations

from pathlib import Path

from bootproof.harness.fixtures import Boot, BootTheImage


def test_file_that_is_no_kernel(boot: Boot, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("hello\n")
    result = boot(tmp_path / "notes.txt", offset="16M")
    assert result.verdict == "load-refused"
    assert "neither a kernel nor a packed kernel" in repr(result)


def test_directory_that_is_no_boot_image(boot_image: BootTheImage, tmp_path: Path) -> None:
    (tmp_path / "boot.json").write_text("{}\n")
    result = boot_image(tmp_path)
    assert result.verdict == "load-refused"
    assert "boot.json" in result.reason
