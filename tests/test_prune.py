"""Which releases are forgotten, decided without Docker."""

from __future__ import annotations

import pytest

from slipway.prune import plan_prune


@pytest.mark.parametrize(
    ("ids", "good", "current", "previous", "keep", "going"),
    [
        pytest.param("", "", None, None, 5, "", id="nothing there"),
        pytest.param("c b a", "c b a", "c", "b", 3, "", id="as many as are kept"),
        pytest.param("d c b a", "d c b a", "d", "c", 2, "b a", id="the newest good ones stay"),
        pytest.param(
            "d c b a", "d c b a", "d", "c", 1, "b a", id="the current one and the one before stay whatever is kept"
        ),
        pytest.param("e x d y c b", "e d c b", "e", "d", 3, "x y b", id="failed ones push no good one out"),
        pytest.param("x e y d", "e d", "e", "d", 5, "y", id="a failed one that is newer than any good one stays"),
        pytest.param("a x d c b", "a d c b", "a", "d", 2, "x c b", id="one that was gone back to counts as the newest"),
        pytest.param("x y", "", None, None, 1, "", id="as long as nothing served, nothing goes"),
        pytest.param("c b", "c z y b", "c", "b", 2, "", id="good ones that went before count for nothing"),
        pytest.param("x d c", "d c", "c", "d", 1, "", id="the current one need not be the newest good one"),
        pytest.param("c x", "", "c", None, 1, "", id="without a ledger nothing is known to be older"),
    ],
)
def test_what_goes(  # noqa: PLR0917 - a table reads better than names
    ids: str, good: str, current: str | None, previous: str | None, keep: int, going: str
) -> None:
    assert (
        plan_prune(ids=ids.split(), good=good.split(), current=current, previous=previous, keep=keep) == going.split()
    )
