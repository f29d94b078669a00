"""Which inventory an environment belongs to: another one of the same name is told so."""

from __future__ import annotations

from pathlib import Path

import pytest

from slipway import release
from slipway.errors import PreflightError
from slipway.owner import Owner, refuse_another
from slipway.release import Manifest, Release
from slipway.store import Store

OURS = Owner(environment="production", fingerprint=release.owner("k" * 32, "shop"))


def stage(store: Store, release_id: str, owner: Owner) -> None:
    manifest = Manifest(
        name="shop",
        environment=owner.environment,
        id=release_id,
        kit="1",
        images={},
        tags={},
        fingerprints={},
        services={},
        owner=owner.fingerprint,
    )
    store.keep(store.place(Release(manifest=manifest, files=[])))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store("shop", tmp_path)


def test_a_host_without_the_environment_takes_any_inventory(store: Store) -> None:
    refuse_another(store, OURS)


def test_its_own_inventory_may_go_on(store: Store) -> None:
    stage(store, "r1", OURS)
    refuse_another(store, OURS)
    store.point("r1")
    refuse_another(store, OURS)


@pytest.mark.parametrize("serves", [True, False], ids=["which serves", "which never served"])
@pytest.mark.parametrize(
    ("theirs", "sentence"),
    [
        (
            Owner(environment="staging", fingerprint=OURS.fingerprint),
            "There is an environment shop on this host already, which belongs to the inventory of staging, "
            "and this one is that of production.",
        ),
        (
            Owner(environment="production", fingerprint=release.owner("x" * 32, "shop")),
            "There is an environment shop on this host already, which belongs to another inventory of production, "
            "with another release_fingerprint_key.",
        ),
    ],
    ids=["another environment", "another key"],
)
def test_another_inventory_is_refused_and_told_whose_it_is(
    store: Store, theirs: Owner, sentence: str, serves: bool
) -> None:
    stage(store, "r1", theirs)
    if serves:
        store.point("r1")
    with pytest.raises(PreflightError) as refused:
        refuse_another(store, OURS)
    assert refused.value.what == sentence
    assert "-e release_take_over=true" in refused.value.do_next


def test_what_serves_decides_once_it_was_taken_over(store: Store) -> None:
    stage(store, "r1", Owner(environment="staging", fingerprint="theirs"))
    stage(store, "r2", OURS)
    store.point("r2")
    refuse_another(store, OURS)


def test_a_release_of_an_older_kit_belongs_to_whoever_comes(store: Store) -> None:
    stage(store, "r1", Owner(environment="staging", fingerprint=""))
    store.point("r1")
    refuse_another(store, OURS)


def test_the_fingerprint_tells_names_and_keys_apart_and_gives_no_key_away() -> None:
    marks = {release.owner(key, name) for key in ("k" * 32, "x" * 32) for name in ("shop", "blog")}
    assert len(marks) == 4
    assert not any("kkkk" in mark for mark in marks)
