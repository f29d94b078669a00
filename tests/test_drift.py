"""What is found on a host, held against what its release declares."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

from slipway.drift import Difference, containers, release_containers, strangers

REFERENCE = "registry.example/shop/api@sha256:1"
IMAGE = {
    "Id": "sha256:i1",
    "Config": {
        "Env": ["PATH=/usr/bin", "LANG=C.UTF-8"],
        "Entrypoint": ["/usr/bin/api"],
        "Cmd": ["serve"],
        "User": "",
        "Volumes": {"/cache": {}},
    },
}
DOCUMENT: dict[str, Any] = {
    "name": "shop-r1",
    "networks": {"default": {"name": "shop-r1_default"}},
    "volumes": {"data": {"name": "shop-data", "external": True}},
    "services": {
        "api": {
            "image": REFERENCE,
            "command": None,
            "entrypoint": None,
            "environment": {"PRICE": "5$", "TOKEN": "hidden-value", "LANG": "C"},
            "user": "1001:1001",
            "read_only": True,
            "init": True,
            "cap_drop": ["ALL"],
            "cap_add": ["NET_BIND_SERVICE"],
            "security_opt": ["no-new-privileges:true"],
            "mem_limit": "67108864",
            "cpus": 0.5,
            "pids_limit": 32,
            "restart": "unless-stopped",
            "tmpfs": ["/tmp", "/run:size=1m"],  # noqa: S108 - folders in the container
            "volumes": [
                {"type": "bind", "source": "/srv/r1/a.json", "target": "/a.json", "read_only": True},
                {"type": "volume", "source": "data", "target": "/data"},
            ],
            "networks": {"default": {"ipv4_address": "10.207.0.11", "aliases": ["api"]}},
            "ports": [],
        }
    },
}
BODY: dict[str, Any] = {
    "Id": "c1",
    "Name": "/shop-r1-api-1",
    "Image": "sha256:i1",
    "State": {"Status": "running"},
    "Config": {
        "Image": REFERENCE,
        "Env": ["PRICE=5$", "TOKEN=hidden-value", "LANG=C", "PATH=/usr/bin"],
        "Entrypoint": ["/usr/bin/api"],
        "Cmd": ["serve"],
        "User": "1001:1001",
        "Labels": {"com.docker.compose.service": "api", "org.slipway.release": "r1"},
    },
    "HostConfig": {
        "ReadonlyRootfs": True,
        "Privileged": False,
        "Init": True,
        "CapAdd": ["CAP_NET_BIND_SERVICE"],
        "CapDrop": ["ALL"],
        "SecurityOpt": ["no-new-privileges:true"],
        "Memory": 67108864,
        "NanoCpus": 500000000,
        "PidsLimit": 32,
        "RestartPolicy": {"Name": "unless-stopped"},
        "Tmpfs": {"/tmp": "", "/run": "size=1m"},  # noqa: S108 - folders in the container
        "PortBindings": {},
    },
    "Mounts": [
        {"Type": "bind", "Source": "/srv/r1/a.json", "Destination": "/a.json", "RW": False},
        {"Type": "volume", "Name": "shop-data", "Source": "/var/x", "Destination": "/data", "RW": True},
        {"Type": "volume", "Name": "f" * 64, "Source": "/var/y", "Destination": "/cache", "RW": True},
    ],
    "NetworkSettings": {"Networks": {"shop-r1_default": {"IPAMConfig": {"IPv4Address": "10.207.0.11"}}}},
}


def found(*bodies: dict[str, Any], document: dict[str, Any] = DOCUMENT) -> list[Difference]:
    by_name = release_containers(bodies, "r1")
    return containers(document, by_name, {"sha256:i1": IMAGE}, {"sha256:i1": REFERENCE})


def after(change: Callable[[dict[str, Any]], object]) -> list[tuple[str, str, str]]:
    """What differs once the container has been changed."""
    body = copy.deepcopy(BODY)
    change(body)
    differences = found(body)
    assert all(one.where == "api" for one in differences)
    return [(one.field, one.declared, one.found) for one in differences]


def test_a_container_that_is_as_its_release_says_differs_in_nothing() -> None:
    assert found(BODY) == []


@pytest.mark.parametrize(
    ("change", "difference"),
    [
        (lambda body: body["State"].update(Status="exited"), ("state", "running", "exited")),
        (lambda body: body["HostConfig"].update(Memory=2 * 67108864), ("memory", "64 MiB", "128 MiB")),
        (lambda body: body["HostConfig"].update(Memory=1000), ("memory", "64 MiB", "1000 bytes")),
        (lambda body: body["HostConfig"].update(NanoCpus=10**9), ("cpus", "0.5", "1")),
        (lambda body: body["HostConfig"].update(PidsLimit=None), ("pids", "32", "0")),
        (lambda body: body["HostConfig"]["RestartPolicy"].update(Name="no"), ("restart", "unless-stopped", "no")),
        (lambda body: body["HostConfig"].update(ReadonlyRootfs=False), ("read_only", "yes", "no")),
        (lambda body: body["HostConfig"].update(Privileged=True), ("privileged", "no", "yes")),
        (lambda body: body["HostConfig"].update(Init=None), ("init", "yes", "no")),
        (lambda body: body["HostConfig"].update(CapDrop=None), ("cap_drop", "ALL", "none")),
        (
            lambda body: body["HostConfig"].update(CapAdd=["NET_BIND_SERVICE", "SYS_ADMIN"]),
            ("cap_add", "NET_BIND_SERVICE", "NET_BIND_SERVICE, SYS_ADMIN"),
        ),
        (
            lambda body: body["HostConfig"].update(SecurityOpt=[]),
            ("security_opt", "no-new-privileges:true", "none"),
        ),
        (lambda body: body["Config"].update(User="0"), ("user", "1001:1001", "0")),
        (lambda body: body["Config"].update(Cmd=["serve", "--x y"]), ("command", "serve", "serve '--x y'")),
        (lambda body: body["Config"].update(Entrypoint=None), ("entrypoint", "/usr/bin/api", "")),
        (lambda body: body["HostConfig"].update(Tmpfs={"/run": "size=1m"}), ("tmpfs /tmp", "", "absent")),
        (
            lambda body: body["Mounts"][0].update(RW=True),
            ("mount /a.json", "bind /srv/r1/a.json, read-only", "bind /srv/r1/a.json"),
        ),
        (lambda body: body["Mounts"].pop(1), ("mount /data", "volume shop-data", "absent")),
        (
            lambda body: body["HostConfig"].update(PortBindings={"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "80"}]}),  # noqa: S104
            ("port 0.0.0.0:80", "absent", "80/tcp"),
        ),
        (
            lambda body: body["NetworkSettings"]["Networks"].update(bridge={"IPAMConfig": None}),
            ("network bridge", "absent", ""),
        ),
        (
            lambda body: body["NetworkSettings"]["Networks"]["shop-r1_default"].update(IPAMConfig=None),
            ("network shop-r1_default", "10.207.0.11", ""),
        ),
        (
            lambda body: body.update(Image="sha256:i2") or body["Config"].update(Image="shop/api:dev"),
            ("image", REFERENCE, "shop/api:dev"),
        ),
    ],
)
def test_each_field_that_someone_changed_is_told(
    change: Callable[[dict[str, Any]], object], difference: tuple[str, str, str]
) -> None:
    assert difference in after(change)


def test_the_same_image_by_another_name_is_the_same_image() -> None:
    assert after(lambda body: body["Config"].update(Image="shop/api:1.0")) == []


@pytest.mark.parametrize(
    ("variables", "difference"),
    [
        (["PRICE=5$", "TOKEN=changed-value", "LANG=C"], ("environment TOKEN", "set", "set to another value")),
        (["PRICE=5$", "LANG=C"], ("environment TOKEN", "set", "absent")),
        (["PRICE=5$", "TOKEN=hidden-value", "LANG=C", "MORE=new-value"], ("environment MORE", "absent", "set")),
    ],
)
def test_of_the_environment_names_are_told_and_never_a_value(
    variables: list[str], difference: tuple[str, str, str]
) -> None:
    told = after(lambda body: body["Config"].update(Env=[*variables, "PATH=/usr/bin"]))
    assert told == [difference]
    assert "-value" not in str(told)


def test_a_container_that_is_missing_or_too_many_is_told() -> None:
    more = copy.deepcopy(BODY)
    more["Config"]["Labels"]["com.docker.compose.service"] = "cron"
    assert found(more) == [
        Difference("api", "container", "present", "absent"),
        Difference("cron", "container", "absent", "present"),
    ]


def test_an_entrypoint_of_ones_own_goes_without_the_images_command() -> None:
    document = copy.deepcopy(DOCUMENT)
    document["services"]["api"]["entrypoint"] = ["sh"]
    assert [(one.field, one.declared, one.found) for one in found(BODY, document=document)] == [
        ("entrypoint", "sh", "/usr/bin/api"),
        ("command", "", "serve"),
    ]


def test_a_service_on_the_hosts_network_has_no_other() -> None:
    document = copy.deepcopy(DOCUMENT)
    document["services"]["api"].update(network_mode="host", networks=None)
    body = copy.deepcopy(BODY)
    body["NetworkSettings"]["Networks"] = {"host": {"IPAMConfig": None}}
    assert found(body, document=document) == []


# --- what should not be there ---------------------------------------------------------------------------------------


def stranger(release: str, state: str = "exited", one_off: bool = False) -> dict[str, Any]:
    labels = {"org.slipway.release": release, "com.docker.compose.oneoff": str(one_off)}
    return {"Name": "/shop-x-api-1", "State": {"Status": state}, "Config": {"Labels": labels}}


@pytest.mark.parametrize(
    ("body", "told"),
    [
        (stranger("r2", "running"), []),
        (stranger("r1"), []),
        (stranger("r1", "running"), [("state", "stopped, kept to go back to", "running")]),
        (stranger("r9"), [("release", "one of this host", "r9")]),
        (stranger(""), [("release", "one of this host", "none")]),
        (stranger("r2", one_off=True), [("container", "absent", "left by a call that was killed")]),
    ],
    ids=["current", "kept", "two at once", "folder gone", "foreign", "one-shot"],
)
def test_containers_under_the_label_that_should_not_be_there(
    body: dict[str, Any], told: list[tuple[str, str, str]]
) -> None:
    differences = strangers([body], "r2", ["r1", "r2"], at_work=False)
    assert [(one.field, one.declared, one.found) for one in differences] == told
    assert all(one.where == "shop-x-api-1" for one in differences)


def test_while_a_run_is_at_work_a_second_release_and_a_one_shot_are_its_doing() -> None:
    bodies = [stranger("r1", "running"), stranger("r2", "running", one_off=True)]
    assert strangers(bodies, "r2", ["r1", "r2"], at_work=True) == []
    assert len(strangers([stranger("r9")], "r2", ["r1", "r2"], at_work=True)) == 1
