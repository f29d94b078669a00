"""Hosts of which the engine's answers are played again: each call takes as long as it took when nothing else ran.

Machines of a lab share the processors of this one, also with the controller. Played again, what hosts do takes its time
and none of the processors, as if each had its own, and what is left to measure is what the controller adds.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from plugins.engine import ENGINE

KEPT = "/run/slipway-played"
PLAYER = f"""\
#!/bin/sh
# Stands in for the engine. It notes what each verb answers, and how long that took at best; or it plays that again.
kept={KEPT}/$1
if [ -e {KEPT}/noting ]; then
    began=$(date +%s%N)
    {ENGINE}.itself "$@" > "$kept.answer"
    code=$?
    now=$(( ($(date +%s%N) - began) / 1000000 ))
    took=$now
    [ ! -e "$kept.told" ] || . "$kept.told"
    [ "$now" -gt "$took" ] || echo "took=$now" > "$kept.told"
    cat "$kept.answer"
    exit "$code"
fi
cat > /dev/null
. "$kept.told"
sleep "$(( took / 1000 )).$(printf %03d $(( took % 1000 )))"
cat "$kept.answer"
"""

Call = Callable[[str], None]
"""Runs a script of the shell as root on each of the hosts."""


@contextmanager
def noted(call: Call) -> Iterator[Callable[[], None]]:
    """Note what engines answer; what is given plays it again from then on. In the end they are themselves again."""
    call(
        f"mkdir {KEPT} && touch {KEPT}/noting && mv {ENGINE} {ENGINE}.itself && "
        f"printf %s {shlex.quote(PLAYER)} > {ENGINE} && chmod 0755 {ENGINE}"
    )
    try:
        yield lambda: call(f"rm {KEPT}/noting")
    finally:
        call(f"mv {ENGINE}.itself {ENGINE} && rm -r {KEPT}")
