"""The filters that Ansible calls, called as Ansible does."""

from __future__ import annotations

import importlib.util
import shutil
from collections import UserDict
from pathlib import Path
from typing import Any

import pytest
import yaml
from ansible.errors import AnsibleFilterError

KIT = Path(__file__).parents[1]
FILE = KIT / "plugins" / "filter" / "slipway.py"
API = "registry.example/shop/api"
LOCK = {API: {"dev": "sha256:0", "1.4.1": "sha256:1", "sha-1": "sha256:1", "1.4.2-build.7": "sha256:2"}}


@pytest.fixture(scope="module")
def filters() -> dict[str, Any]:
    spec = importlib.util.spec_from_file_location("slipway_filters", FILE)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    found: dict[str, Any] = module.FilterModule().filters()
    return found


def test_the_newest_tag_is_the_version_of_the_last_push(filters: dict[str, Any]) -> None:
    newest = filters["slipway_newest_tag"]
    assert newest(LOCK, API) == "1.4.2-build.7"
    assert newest({API: {"1.4.1": "sha256:1", "sha-1": "sha256:1"}}, API) == "1.4.1"
    assert newest({API: {"1.4.1": "sha256:1", "dev": "sha256:2"}}, API) == "dev"


@pytest.mark.parametrize("lock", [{}, {"another": {"1": "sha256:1"}}, {API: {}}])
def test_before_the_first_push_the_tag_says_so(lock: dict[str, Any], filters: dict[str, Any]) -> None:
    assert filters["slipway_newest_tag"](lock, API) == "unbuilt"


def test_an_image_takes_its_digest_from_the_contract_else_from_the_lock(
    services: dict[str, Any], filters: dict[str, Any]
) -> None:
    wanted = filters["slipway_wanted_images"]
    assert wanted(services, LOCK) == {"api": {"repository": API, "tag": "1.4.2-build.7", "digest": "sha256:2"}}
    assert wanted(services, {})["api"]["digest"] == ""
    services["api"]["digest"] = "sha256:9"
    assert wanted(services, LOCK)["api"]["digest"] == "sha256:9"


def test_a_mistake_in_registries_is_said_before_anything_is_touched(filters: dict[str, Any]) -> None:
    [problem] = filters["slipway_registry_problems"]([{"host": "https://registry.example"}])
    assert problem.startswith("docker_registries[0].host is no registry")


def test_ports_are_those_of_the_host(services: dict[str, Any], filters: dict[str, Any]) -> None:
    services["worker"] = {"image": "r/worker", "tag": "1", "user": "1:1"}
    assert filters["slipway_ports"](services) == {"api": 4100}


def test_a_contract_of_the_wrong_shape_is_an_error_of_the_filter(
    services: dict[str, Any], filters: dict[str, Any]
) -> None:
    with pytest.raises(AnsibleFilterError, match=r"`str`, got `int` - at `app_services\.api\.user`"):
        filters["slipway_render"]({"api": {**services["api"], "user": 5}}, "shop", "p", {"api": "sha256:1"}, "k")
    with pytest.raises(AnsibleFilterError, match="cannot be a slipway_name"):
        filters["slipway_render"](services, "Shop", "p", {"api": "sha256:1"}, "k")


def test_ansibles_own_containers_become_plain_ones(services: dict[str, Any], filters: dict[str, Any]) -> None:
    lazy = UserDict({"api": UserDict(services["api"])})
    assert filters["slipway_problems"](lazy, "mutable", {}, "k" * 32, 1) == []


def test_what_has_no_place_in_a_contract_is_refused(filters: dict[str, Any]) -> None:
    with pytest.raises(AnsibleFilterError, match="A value of type object has no place in a contract"):
        filters["slipway_ports"]({"api": object()})


def test_the_engines_key_changes_with_each_of_its_sources_and_with_nothing_else(
    tmp_path: Path, filters: dict[str, Any]
) -> None:
    key = filters["slipway_engine_key"]
    shutil.copytree(KIT / "slipway", tmp_path / "slipway", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "requirements-engine.txt"):
        shutil.copy(KIT / name, tmp_path / name)
    before = key(str(tmp_path))
    assert before == key(str(KIT))
    (tmp_path / "README.md").write_text("more")
    assert key(str(tmp_path)) == before
    for name in ("slipway/plan.py", "slipway/images/build.py", "pyproject.toml", "requirements-engine.txt"):
        path = tmp_path / name
        text = path.read_text()
        path.write_text(text + "\n")
        assert key(str(tmp_path)) != before
        path.write_text(text)
    (tmp_path / "slipway" / "new.py").write_text("")
    assert key(str(tmp_path)) != before


ADDRESSES = {"app1": "10.0.0.11", "app2": "10.0.0.12", "edge1": "10.0.0.2", "edge2": "10.0.0.3"}


@pytest.mark.parametrize(
    ("groups", "balancers"),
    [
        ({"app": ["app1"]}, []),
        ({"app": ["app1"], "edge": []}, []),
        ({"app": ["app1"], "edge": ["app1"]}, []),
        ({"app": ["app1"], "edge": ["app1", "edge1"]}, ["edge1"]),
        ({"edge": ["edge1"]}, ["edge1"]),
    ],
)
def test_the_edge_tier_is_the_hosts_that_are_no_app_hosts(
    groups: dict[str, list[str]], balancers: list[str], filters: dict[str, Any]
) -> None:
    assert filters["slipway_balancers"](groups) == balancers


@pytest.mark.parametrize(
    ("host", "balancers", "tier"),
    [
        ("app1", [], ""),
        ("edge1", ["edge1", "edge2"], ""),
        ("app1", ["edge1", "edge2"], "10.0.0.11 for 10.0.0.2 10.0.0.3"),
    ],
)
def test_an_app_host_is_told_of_the_tier(host: str, balancers: list[str], tier: str, filters: dict[str, Any]) -> None:
    assert filters["slipway_tier"](ADDRESSES, balancers, host) == tier


@pytest.mark.parametrize("address", ["", "app1.example", "10.0.0.11/24", "fd00::1", "10.0.0.011"])
def test_a_host_without_a_private_address_is_named(address: str, filters: dict[str, Any]) -> None:
    assert filters["slipway_unreachable"]({}) == []
    assert filters["slipway_unreachable"](ADDRESSES) == []
    assert filters["slipway_unreachable"]({**ADDRESSES, "app2": address}) == ["app2"]


def test_the_tier_is_told_of_what_has_names_and_secrets_stay_apart(
    services: dict[str, Any], filters: dict[str, Any]
) -> None:
    services["worker"] = {"image": "r/worker", "tag": "1", "user": "1:1"}
    assert filters["slipway_front"](services, "shop", "k" * 32)["front"]["services"] == {}
    services["api"]["route"] = {"hosts": ["shop.example"], "tls": {"mode": "own", "certificate": "C", "key": "geheim"}}
    told = filters["slipway_front"](services, "shop", "k" * 32)
    assert list(told["front"]["services"]) == ["api"]
    assert told["certificates"] == {"api.crt": "C", "api.key": "geheim"}
    assert list(told["front"]["fingerprints"]) == ["edge/api.crt", "edge/api.key"]
    assert "geheim" not in str(told["front"])
    services["api"]["colour"] = "red"
    with pytest.raises(AnsibleFilterError, match="colour"):
        filters["slipway_front"](services, "shop", "k" * 32)


def test_a_compose_file_leaves_no_text_to_be_taken_for_anything_else(filters: dict[str, Any]) -> None:
    document = {
        "services": {"api": {"environment": {"A": "1e3", "B": "0o17", "on": "x", "C-D": "a\n b #c"}, "cpus": 1.5}},
        "list": ["yes", "5:30"],
    }
    text = filters["slipway_compose_text"](document)
    assert yaml.safe_load(text) == document
    assert [line.strip() for line in text.splitlines()[3:]] == [
        'A: "1e3"',
        'B: "0o17"',
        '"on": "x"',
        'C-D: "a\\n b #c"',
        "cpus: 1.5",
        "list:",
        '- "yes"',
        '- "5:30"',
    ]
