"""The host's half of preflight, as far as it needs no Docker: the clock comes first."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from slipway.errors import PreflightError
from slipway.preflight import PreflightRequest, preflight


@pytest.mark.parametrize(
    ("ahead", "said"),
    [
        (86400, "1 day ahead of"),
        (-3 * 86400, "3 days behind"),
        (7300, "2 hours ahead of"),
        (-130, "2 minutes behind"),
        (61, "1 minute ahead of"),
    ],
)
def test_a_clock_that_is_off_is_said_with_how_much_and_which_way(ahead: float, said: str, tmp_path: Path) -> None:
    request = PreflightRequest(name="shop", images={}, min_free_mb=1, now=time.time() - ahead)
    with pytest.raises(PreflightError) as refused:
        preflight(request, tmp_path)
    assert refused.value.what == f"The clock of this host is {said} the controller's."
    assert "timedatectl set-ntp true" in refused.value.do_next
