"""What a host does by itself at a time of day: by systemd's timers, or by cron where there is no systemd.

/etc/systemd/system/slipway-<name>-<kind>.service, .timer
/etc/cron.d/slipway-<name>-<kind>
"""

from __future__ import annotations

import re
import shlex
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Literal

import msgspec

from slipway.errors import PreflightError, SlipwayError, UsageError
from slipway.stack import StackFile, differs, write

ETC = Path("/etc")
SYSTEMD = Path("/run/systemd/system")
CRON_PID = Path("/run/crond.pid")
Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
TIME = re.compile(r"([01][0-9]|2[0-3]):([0-5][0-9])")


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """Something that is done at each of these `times` (`HH:MM`, the host's own), every day or on one of the week."""

    kind: str
    """One word."""
    what: str
    """For people, as in `systemctl list-timers`."""
    command: list[str]
    times: list[str]
    day: Day | None = None


def settle(jobs: Sequence[Job], name: str, kinds: Sequence[str], *, check: bool = False, etc: Path = ETC) -> list[str]:
    """Have these be the jobs of environment `name`, and no others of these `kinds`; what differed, by paths.

    Raises :class:`UsageError` for a time that is none, :class:`PreflightError` where nothing could start them.
    """
    for job in jobs:
        if wrong := [time for time in job.times if not TIME.fullmatch(time)]:
            raise UsageError(f"{wrong[0]} is no time of day.", 'Write it as "03:17", with its quotes.')
    by_timers = SYSTEMD.is_dir()
    files = [file for job in jobs for file in (_units(name, job) if by_timers else _crontab(name, job))]
    wanted = {file.path for file in files}
    stale = sorted({str(path.relative_to(etc)) for path in _present(name, kinds, etc)} - wanted)
    changes = [file for file in files if differs(file, etc)]
    if check or not (changes or stale):
        return [*(file.path for file in changes), *stale]
    timers = [f"slipway-{name}-{job.kind}.timer" for job in jobs]
    if by_timers:
        for path in stale:
            if path.endswith(".timer"):
                _systemctl("disable", "--now", Path(path).name)
    elif jobs:
        _start_cron()
    for file in changes:
        write(file, etc)
    for path in stale:
        (etc / path).unlink()
    if by_timers:
        _systemctl("daemon-reload")
        if timers:
            _systemctl("enable", "--now", *timers)
    return [*(file.path for file in changes), *stale]


def _present(name: str, kinds: Sequence[str], etc: Path) -> Iterator[Path]:
    for kind in kinds:
        yield from etc.glob(f"systemd/system/slipway-{name}-{kind}.*")
        yield from etc.glob(f"cron.d/slipway-{name}-{kind}")


def _units(name: str, job: Job) -> list[StackFile]:
    service = f"""\
[Unit]
Description={job.what}
After=docker.service network-online.target
Wants=network-online.target

[Service]
Type=oneshot
ExecStart={shlex.join(job.command)}
# What serves comes first.
CPUWeight=idle
IOWeight=1
"""
    day = f"{job.day.capitalize()} " if job.day else ""
    when = "".join(f"OnCalendar={day}*-*-* {time}:00\n" for time in job.times)
    timer = f"""\
[Unit]
Description={job.what}

[Timer]
{when}# One that was missed is made up for.
Persistent=true

[Install]
WantedBy=timers.target
"""
    folder = f"systemd/system/slipway-{name}-{job.kind}"
    return [
        StackFile(path=f"{folder}.service", content=service, mode="0644"),
        StackFile(path=f"{folder}.timer", content=timer, mode="0644"),
    ]


def _crontab(name: str, job: Job) -> list[StackFile]:
    lines = [f"# {job.what}\n", "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\n"]
    for time in job.times:
        hour, minute = (int(part) for part in time.split(":"))
        lines.append(f"{minute} {hour} * * {job.day or '*'} root {shlex.join(job.command)} >/dev/null 2>&1\n")
    # Cron passes over names with a dot in them; a name of an environment has none.
    return [StackFile(path=f"cron.d/slipway-{name}-{job.kind}", content="".join(lines), mode="0644")]


def _start_cron() -> None:
    """Start cron where nothing else starts programs; it goes into the background by itself."""
    try:
        if Path(f"/proc/{int(CRON_PID.read_text())}").exists():
            return
    except (OSError, ValueError):
        pass
    try:
        subprocess.run(["cron"], check=True, capture_output=True, stdin=subprocess.DEVNULL)
    except (OSError, subprocess.CalledProcessError) as error:
        raise PreflightError(
            "This host has neither systemd nor cron, so nothing would start a backup at its time.",
            "Install cron: apt-get install -y cron.",
        ) from error


def _systemctl(*arguments: str) -> None:
    done = subprocess.run(["systemctl", *arguments], capture_output=True, text=True, check=False)
    if done.returncode:
        raise SlipwayError(
            f"systemd did not take over what is done at its time: systemctl {arguments[0]} failed.",
            "Its words are below.",
            details=done.stderr.strip(),
        )
