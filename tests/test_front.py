"""What a host of the edge tier keeps, and what it says where it cannot do what is asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from slipway.cli import main
from slipway.contract import Health, Route, Service
from slipway.display import front_text
from slipway.edge import balanced
from slipway.errors import SlipwayError, UsageError
from slipway.front import (
    Drained,
    Front,
    FrontRequest,
    Fronts,
    FrontStatus,
    HostStatus,
    declared,
    front_status,
    only_front,
    site_of,
)
from slipway.release import Manifest

API = Service(
    image="r/api",
    user="1:1",
    port=8000,
    publish=4100,
    health=Health(path="/ready"),
    route=Route(hosts=["shop.example"]),
)
HOSTS = {"app1": "10.0.0.11", "app2": "10.0.0.12"}
ALICE = Drained(since="2026-11-24T18:00:00+00:00", by="alice", reason="a new disk")


def front(**change: Any) -> Front:
    fields: dict[str, Any] = {"name": "shop", "services": {"api": API}, "fingerprints": {}, "hosts": HOSTS}
    return Front(**{**fields, **change})


def request(**change: Any) -> FrontRequest:
    return FrontRequest(**{"name": "shop", "services": {"api": API}, "hosts": HOSTS, **change})


@pytest.mark.parametrize(
    ("before", "hosts", "drained"),
    [
        (None, HOSTS, {}),
        (front(), HOSTS, {}),
        (front(drained={"app2": ALICE}), HOSTS, {"app2": ALICE}),
        (front(drained={"app2": ALICE}), {**HOSTS, "app3": "10.0.0.13"}, {"app2": ALICE}),
        (front(drained={"app2": ALICE}), {"app1": "10.0.0.11"}, {}),
    ],
)
def test_a_drained_host_stays_drained_as_long_as_there_is_one_of_that_name(
    before: Front | None, hosts: dict[str, str], drained: dict[str, Drained]
) -> None:
    assert declared(request(hosts=hosts), before) == front(hosts=hosts, drained=drained)


def test_the_site_is_over_the_hosts_that_are_not_drained() -> None:
    shop = Manifest(
        name="shop", environment="", id="", kit="", images={}, tags={}, fingerprints={}, services={"api": API}
    )
    assert site_of(front()) == balanced(shop, ["10.0.0.11", "10.0.0.12"])
    assert site_of(front(drained={"app1": ALICE})) == balanced(shop, ["10.0.0.12"])
    assert site_of(front(drained={"app1": ALICE, "app2": ALICE})) == balanced(shop, [])


def write(root: Path, name: str, data: Any) -> None:
    folder = root / "edge" / "front"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_bytes(msgspec.json.encode(data))


def test_what_another_version_of_the_kit_wrote_is_read(tmp_path: Path) -> None:
    write(tmp_path, "shop", {**msgspec.to_builtins(front(drained={"app2": ALICE})), "colour": "red"})
    assert Fronts(tmp_path).read("shop") == front(drained={"app2": ALICE})


def test_where_there_is_no_edge_nothing_is_balanced_and_the_error_says_what_to_run(tmp_path: Path) -> None:
    fronts = Fronts(tmp_path)
    with pytest.raises(SlipwayError, match=r"no edge on this host\. Run playbooks/edge\.yml"):
        fronts.declare(request())
    with pytest.raises(SlipwayError, match=r"no edge on this host\. Run playbooks/edge\.yml"):
        fronts.drain("shop", "app1", ALICE)
    assert list(tmp_path.iterdir()) == []


def test_check_mode_on_a_bare_host_says_that_it_would_be_balanced(tmp_path: Path) -> None:
    assert Fronts(tmp_path).declare(request(check=True))["changed"]
    assert not Fronts(tmp_path).declare(request(state="absent", check=True))["changed"]
    assert not Fronts(tmp_path).declare(request(state="absent"))["changed"]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("name", ["../etc", "a", "Shop"])
def test_a_name_that_is_none_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not a name of an environment"):
        Fronts(tmp_path).read(name)


def test_the_only_environment_need_not_be_named(tmp_path: Path) -> None:
    with pytest.raises(SlipwayError, match=r"This host balances nothing\. Run playbooks/front\.yml"):
        only_front(tmp_path)
    write(tmp_path, "shop", front())
    assert only_front(tmp_path) == "shop"
    write(tmp_path, "blog", front(name="blog"))
    with pytest.raises(UsageError, match=r"balances several environments: blog, shop\. Name one with --name"):
        only_front(tmp_path)


def test_with_all_hosts_drained_nobody_serves(tmp_path: Path) -> None:
    gone = {"app1": "127.0.0.1"}
    port = msgspec.structs.replace(API, publish=9)
    write(tmp_path, "shop", front(hosts=gone, services={"api": port}, drained={"app1": ALICE}))
    assert front_status("shop", tmp_path).complaint == "no app host gets requests"


def test_the_text_of_the_status() -> None:
    hosts = {
        "app1": HostStatus(address="10.0.0.11"),
        "app2": HostStatus(address="10.0.0.12", since=ALICE.since, by="alice", reason="a new disk"),
        "app3": HostStatus(address="10.0.0.13", complaint="no answer from /ready: timed out"),
    }
    found = FrontStatus(name="shop", names=["shop.example"], hosts=hosts, complaint="app3: timed out")
    assert (
        front_text(found)
        == """\
NAME  NAMES         VERDICT
shop  shop.example  NOT HEALTHY: app3: timed out

APP HOST  ADDRESS    STATE                             DRAINED (UTC)
app1      10.0.0.11  answers                           -
app2      10.0.0.12  drained by alice: a new disk      2026-11-24T18:00:00
app3      10.0.0.13  no answer from /ready: timed out  -"""
    )


def test_status_on_a_host_of_the_tier_is_that_of_the_tier(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 0)
    write(
        tmp_path, "shop", front(hosts={"app1": "127.0.0.1"}, services={"api": msgspec.structs.replace(API, publish=9)})
    )
    for arguments in ([], ["--name", "shop"]):
        assert main(["--root", str(tmp_path), "status", *arguments]) == 2
        assert "NOT HEALTHY: app1: no answer from /ready" in capsys.readouterr().out
    assert main(["--root", str(tmp_path), "drain", "app2", "on"]) == 1
    assert capsys.readouterr().err.startswith("There is no edge on this host.")
