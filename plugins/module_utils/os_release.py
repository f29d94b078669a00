"""Reads which system this is."""

from __future__ import annotations

from pathlib import Path


def read_os_release(file: Path) -> dict[str, str]:
    """Read os-release into a dict; empty when the file is not there."""
    try:
        pairs = (line.partition("=") for line in file.read_text(encoding="utf-8").splitlines() if "=" in line)
    except OSError:
        return {}
    return {name: value.strip("\"'") for name, _, value in pairs}
