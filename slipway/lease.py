"""The lease: which run may change an environment on this host, beyond the length of one call.

    lease.json      {run, by, fence, expires, caller, boot, what}
    waiting         touched by whoever waits for another run to end

A run takes the lease with its first call and renews it with each one that follows. The fencing number rises with
every new holder, so that a run that was held up for long and comes back finds that another has taken over. The
lease ends when the run gives it up, when it expires, or when the call of its that was at work is no more: a
process that was killed, or a host that was restarted, cannot come back.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from pathlib import Path

import msgspec

from slipway.errors import PreflightError

SECONDS = 30.0
"""How long a lease holds after the last call of its run."""
FILE = "lease.json"
WAITING_FILE = "waiting"
FRESH = 2.0
"""Seconds after which whoever waited has gone."""
SECTOR = 512
"""Bytes that a disk writes whole or not at all."""
BOOT = Path("/proc/sys/kernel/random/boot_id")


class Lease(msgspec.Struct, kw_only=True):
    """Who holds the environment. `run` is empty when nobody does; the fencing number stays."""

    run: str = ""
    by: str = ""
    fence: int = 0
    expires: float = 0.0
    """Seconds since 1970."""
    caller: str = ""
    """The process of the run that is at work now, as `number start-time`; empty between two calls."""
    boot: str = ""
    """The boot of the host that the caller belongs to."""
    what: str = ""
    """The verb that it was called for last."""

    @property
    def over(self) -> bool:
        """Whether another run may have it."""
        return not self.run or self._caller_is_gone() or (not self.caller and time.time() >= self.expires)

    @property
    def unfinished(self) -> bool:
        """Whether a run had it that neither ended well nor gave it up."""
        return bool(self.run) and self.over

    def _caller_is_gone(self) -> bool:
        return bool(self.caller) and (self.boot != _boot() or self.caller != _process(self.caller.partition(" ")[0]))


class LostError(PreflightError):
    """This run had the lease once, and another has it now."""


class Leases:
    """The lease of the environment whose folder this is.

    Every method needs the environment's lock, but `read`, `is_of`, `wait_for` and `awaited`.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE
        self._waiting = folder / WAITING_FILE

    def read(self) -> Lease:
        """The lease as it is now. A file that a crash cut short counts as no lease, with its number lost."""
        try:
            return msgspec.json.decode(self._path.read_bytes(), type=Lease)
        except (FileNotFoundError, msgspec.MsgspecError):
            return Lease()

    def is_of(self, run: str, fence: int | None) -> bool:
        """Whether this run has it, by the number that it was given."""
        return _is_of(self.read(), run, fence)

    def enter(self, *, run: str, by: str, what: str, fence: int | None) -> Lease | None:
        """Take or renew the lease for one call; the answer is what an unfinished run before left, if there is one.

        `fence` is the number that this run was given, None for its first call. Raises :class:`LostError` when another
        run has taken over, and :class:`HeldError` when another one holds it.
        """
        held = self.read()
        ours = _is_of(held, run, fence)
        if fence is not None and not ours:
            taken = f"{held.by} (run {held.run}) has it now" if held.run else "it has expired or was broken"
            raise LostError(
                f"This run has lost its lease on the environment: {taken}.",
                "Look how it stands, and run the play again.",
            )
        if not ours and not held.over:
            raise HeldError(held)
        self._write(
            Lease(
                run=run,
                by=by,
                fence=held.fence if ours else held.fence + 1,
                # Between calls it holds for a while; during one, for as long as the caller lives.
                expires=time.time() + SECONDS,
                caller=_process(str(os.getpid())),
                boot=_boot(),
                what=what,
            )
        )
        return held if held.unfinished and not ours else None

    def wait_for(self, seconds: float) -> None:
        """Wait that long for whoever holds it, and let that be known."""
        with suppress(OSError):
            self._waiting.touch(mode=0o600)
        time.sleep(seconds)

    def awaited(self) -> bool:
        """Whether another run waits for the one that holds it."""
        try:
            return abs(time.time() - self._waiting.stat().st_mtime) < FRESH
        except FileNotFoundError:
            return False

    def leave(self, seconds: float) -> None:
        """The call is over; the run keeps the lease for `seconds`."""
        lease = self.read()
        self._write(msgspec.structs.replace(lease, caller="", expires=time.time() + seconds))

    def free(self) -> Lease:
        """Give the lease up, or take it away; the answer is what it was."""
        lease = self.read()
        self._write(Lease(fence=lease.fence))
        return lease

    def _write(self, lease: Lease) -> None:
        # In place, and always the same size within one sector: a full disk must keep nobody from going back.
        handle = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.pwrite(handle, msgspec.json.encode(lease).ljust(SECTOR), 0)
            os.fsync(handle)
        finally:
            os.close(handle)


class HeldError(PreflightError):
    """Another run holds the lease."""

    def __init__(self, held: Lease) -> None:
        at_work = "is at work now" if held.caller else f"has it for {max(held.expires - time.time(), 0):.0f} s more"
        super().__init__(
            f"{held.by} is deploying here (run {held.run}, last seen doing {held.what}) and {at_work}.",
            "Wait until that run has ended; if it never will, slipway lease --break --reason WHY takes the lease away.",
        )
        self.held = held


def _is_of(lease: Lease, run: str, fence: int | None) -> bool:
    return lease.run == run and fence in (None, lease.fence)


def _boot() -> str:
    return BOOT.read_text().strip()


def _process(number: str) -> str:
    """A process as `number start-time`, so that another one of the same number is told apart; empty when it is gone."""
    try:
        # Source: proc_pid_stat(5): the 22nd field, counted behind the name in brackets, which may hold blanks.
        fields = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if fields[0] == "Z" else f"{number} {fields[19]}"
