"""Files of a host, each replaced whole: what they are like, what they shall be like, and the step between."""

from __future__ import annotations

import grp
import os
import pwd
import stat
import tempfile
from pathlib import Path

TEXT = {"path": {"type": "path", "required": True}, "content": {"type": "str", "required": True}}
"""What a module is told of a file at least."""


def before(path: Path) -> dict[str, object]:
    """What a file is like, in the words of slipway-undo."""
    if not path.is_file():
        return {"path": str(path), "content": None, "mode": None, "uid": None, "gid": None}
    state = path.stat()
    return {
        "path": str(path),
        "content": path.read_text(encoding="utf-8"),
        "mode": stat.S_IMODE(state.st_mode),
        "uid": state.st_uid,
        "gid": state.st_gid,
    }


def number(name: str, look: object) -> int | None:
    """The uid or gid of a name; None where check mode has not made it."""
    try:
        return int(look(name)[2])  # type: ignore[operator]
    except KeyError:
        return None


def wanted(file: dict[str, str]) -> dict[str, object]:
    """What a file shall be like, in the same words."""
    return {
        "path": file["path"],
        "content": file["content"],
        "mode": int(file["mode"], 8),
        "uid": number(file["owner"], pwd.getpwnam),
        "gid": number(file["group"], grp.getgrnam),
    }


def write(file: dict[str, object], directory_mode: int = 0o755) -> None:
    """Make a file what its description says, or not to be there; it is the old one or the new one at any time."""
    path = Path(str(file["path"]))
    if file["content"] is None:
        path.unlink(missing_ok=True)
        return
    owner = (file["uid"], file["gid"])
    missing = [folder for folder in path.parents if not folder.exists()]
    for folder in reversed(missing):
        folder.mkdir(mode=directory_mode)
        folder.chmod(directory_mode)
        os.chown(folder, *owner)
    with tempfile.NamedTemporaryFile("w", dir=path.parent, prefix=".", delete=False, encoding="utf-8") as written:
        written.write(str(file["content"]))
        os.fchown(written.fileno(), *owner)
        os.fchmod(written.fileno(), file["mode"])
        written.flush()
        os.fsync(written.fileno())
    Path(written.name).rename(path)


def diff(old: dict[str, object], new: dict[str, object]) -> dict[str, str]:
    """As Ansible shows it."""
    header = str(new["path"])
    shown = {"before_header": header, "after_header": header, "before": old["content"] or "", "after": new["content"]}
    if old["content"] == new["content"]:
        names = ("mode", "uid", "gid")
        for side, file in (("before", old), ("after", new)):
            shown[side] = "".join(
                f"{name}: {file[name]:04o}\n" if name == "mode" else f"{name}: {file[name]}\n" for name in names
            )
    return shown
