"""A rendered release: locked down, without a secret where secrets have no place, and byte for byte what was meant."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

from slipway import render
from slipway.errors import UsageError
from slipway.release import LABEL_NAME, LABEL_RELEASE, Release, fingerprint

KEY = "k" * 32
DIGESTS = {"api": "sha256:" + "1" * 64}
CONFIG = "config/api/app/config/environments/production.json"

Services = dict[str, Any]


def rendered(services: Services, **change: Any) -> dict[str, Any]:
    arguments: dict[str, Any] = {
        "name": "shop-production",
        "environment": "production",
        "digests": DIGESTS,
        "key": KEY,
        **change,
    }
    return render.render(services, **arguments)


def api(services: Services) -> dict[str, Any]:
    found: dict[str, Any] = rendered(services)["compose"]["services"]["api"]
    return found


def release_id(services: Services, **change: Any) -> str:
    found: str = rendered(services, **change)["manifest"]["id"]
    return found


# --- locked down --------------------------------------------------------------------------------------------------


def test_a_service_runs_without_root_without_capabilities_and_within_limits(services: Services) -> None:
    body = api(services)
    assert body["user"] == "1001:1001"
    assert body["cap_drop"] == ["ALL"]
    assert "cap_add" not in body
    assert body["security_opt"] == ["no-new-privileges:true"]
    assert body["read_only"] is True
    assert (body["mem_limit"], body["cpus"], body["pids_limit"]) == ("512m", 1.0, 256)
    assert body["logging"]["options"] == {"max-size": "10m", "max-file": "3"}


def test_nothing_is_published_and_every_container_has_an_address_that_the_host_completes(services: Services) -> None:
    services["api"]["replicas"] = 2
    document = rendered(services)["compose"]
    bodies = document["services"]
    assert not [body for body in bodies.values() if "ports" in body]
    addresses = {name: body["networks"]["default"]["ipv4_address"] for name, body in bodies.items()}
    assert addresses["api"] == "${SLIPWAY_NETWORK}.${SLIPWAY_ONCE:-11}"
    assert addresses["api-2"] == "${SLIPWAY_NETWORK}.${SLIPWAY_ONCE:-12}"
    assert bodies["api-2"]["networks"]["default"]["aliases"] == ["api"]


def test_an_image_is_named_by_digest_and_never_by_tag(services: Services) -> None:
    assert api(services)["image"] == f"registry.example/shop/api@{DIGESTS['api']}"


def test_config_files_are_mounted_read_only_and_must_exist(services: Services) -> None:
    mount = api(services)["volumes"][0]
    assert mount == {
        "type": "bind",
        "source": f"./{CONFIG}",
        "target": "/app/config/environments/production.json",
        "read_only": True,
        "bind": {"create_host_path": False},
    }


def test_a_volume_belongs_to_the_environment_and_not_to_the_release(services: Services) -> None:
    assert rendered(services)["compose"]["volumes"] == {"data": {"name": "shop-production-data", "external": True}}


def test_a_volume_that_a_service_only_reads_is_mounted_so(services: Services) -> None:
    services["api"]["volumes"]["data"]["read_only"] = True
    assert api(services)["volumes"][1] == {
        "type": "volume",
        "source": "data",
        "target": "/app/data",
        "read_only": True,
    }


@pytest.mark.parametrize(
    ("stated", "mounted"),
    [
        ("/tmp", "/tmp:uid=1001,gid=1001"),  # noqa: S108 - a folder in the container
        ("/app/logs:size=8m", "/app/logs:size=8m,uid=1001,gid=1001"),
        ("/app/logs:mode=0700,uid=5", "/app/logs:mode=0700,uid=5"),
    ],
)
def test_what_is_writable_and_forgotten_is_writable_for_the_containers_user(
    stated: str, mounted: str, services: Services
) -> None:
    services["api"]["tmpfs"] = [stated]
    assert api(services)["tmpfs"] == [mounted]


def test_a_network_that_is_there_already_is_joined_and_not_made(services: Services) -> None:
    services["api"]["networks"] = ["shop-network"]
    document = rendered(services)["compose"]
    assert document["networks"]["shop-network"] == {"name": "shop-network", "external": True}
    assert list(document["services"]["api"]["networks"]) == ["default", "shop-network"]


def test_a_check_of_the_image_that_cannot_work_is_switched_off(services: Services) -> None:
    assert "healthcheck" not in api(services)
    services["api"]["health"]["image_check"] = False
    assert api(services)["healthcheck"] == {"disable": True}


def test_a_job_is_started_by_nothing_but_a_run_of_its_own(services: Services) -> None:
    services["schema"] = {
        **services["api"],
        "kind": "job",
        "port": None,
        "publish": None,
        "health": None,
        "replicas": 1,
    }
    found = rendered(services, digests={"api": DIGESTS["api"], "schema": DIGESTS["api"]})
    body = found["compose"]["services"]["schema"]
    assert (body["profiles"], body["restart"]) == (["job"], "no")
    assert body["networks"]["default"]["ipv4_address"] == "${SLIPWAY_NETWORK}.${SLIPWAY_ONCE:-250}"
    addresses = {
        name: body["networks"]["default"]["ipv4_address"] for name, body in found["compose"]["services"].items()
    }
    assert addresses["api"] == "${SLIPWAY_NETWORK}.${SLIPWAY_ONCE:-11}", "a job takes no address of a service"


# --- secrets ------------------------------------------------------------------------------------------------------


def test_a_secret_of_a_config_file_is_in_that_file_and_nowhere_else(services: Services, secret: str) -> None:
    found = rendered(services)
    assert secret in found["files"][0]["content"]
    assert secret not in json.dumps(found["compose"])
    assert secret not in json.dumps(found["manifest"])


def test_a_secret_of_the_environment_is_in_the_compose_file_alone(services: Services) -> None:
    services["api"]["secret_env"] = {"TOKEN": "the-one-exception-0123456789abcdef"}
    found = rendered(services)
    finished = render.finish(found, json.dumps(found["compose"]), KEY)
    assert "the-one-exception" in finished["contents"]["compose.yml"]
    assert "the-one-exception" not in json.dumps(finished["release"])
    assert {file["path"]: file["mode"] for file in finished["release"]["files"]}["compose.yml"] == "0400"


def test_the_manifest_knows_every_secret_by_its_name_and_a_keyed_fingerprint(services: Services, secret: str) -> None:
    services["api"]["secret_env"] = {"TOKEN": "the-token"}
    services["api"]["route"] = {"hosts": ["shop.example"], "tls": {"mode": "own", "certificate": "c", "key": "k"}}
    assert rendered(services)["manifest"]["secrets"] == {
        "api:/app/config/environments/production.json#auth.jwtSecret": fingerprint(KEY, secret),
        "api:env:TOKEN": fingerprint(KEY, "the-token"),
        "api:tls:key": fingerprint(KEY, "k"),
    }


def test_a_certificate_and_its_key_are_files_for_the_edge_and_nowhere_else(services: Services) -> None:
    tls = {"mode": "own", "certificate": "the-certificate", "key": "the-key-never-to-be-seen"}
    services["api"]["route"] = {"hosts": ["shop.example"], "tls": tls}
    found = rendered(services)
    files = {file["path"]: file for file in found["files"]}
    assert files["edge/api.crt"]["content"] == "the-certificate"
    assert (files["edge/api.key"]["content"], files["edge/api.key"]["mode"]) == ("the-key-never-to-be-seen", "0400")
    for part in ("manifest", "compose"):
        assert "the-key" not in json.dumps(found[part])
        assert "the-certificate" not in json.dumps(found[part])
    assert found["manifest"]["services"]["api"]["route"]["tls"]["mode"] == "own"


def test_the_ca_of_an_acme_server_is_a_file_too(services: Services) -> None:
    tls = {"mode": "acme", "directory": "https://ca.example/dir", "ca": "the-ca"}
    services["api"]["route"] = {"hosts": ["shop.example"], "tls": tls}
    assert {file["path"] for file in rendered(services)["files"]} == {CONFIG, "edge/api.ca"}


def test_what_may_be_logged_of_a_release_has_no_content_of_a_file(services: Services, secret: str) -> None:
    finished = render.finish(rendered(services), "compose: text\n", KEY)
    assert secret not in json.dumps(finished["release"])
    assert all("content" not in file for file in finished["release"]["files"])
    assert set(finished["contents"]) == {CONFIG, "compose.yml"} == set(finished["release"]["manifest"]["fingerprints"])


# --- byte for byte ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["${DATABASE_URL}", "$", "$$", "a$b", "{{ not_jinja }}", "line\r\nline", "ü\u2028😀"])
def test_a_text_file_survives_byte_for_byte(text: str, services: Services) -> None:
    services["api"]["config_files"][0]["content"] = text
    assert rendered(services)["files"][0]["content"] == text


def test_data_of_a_file_called_env_is_lines_of_variables(services: Services, secret: str) -> None:
    env = {"path": "/app/.env", "content": {"TOKEN": secret, "PRICE": "5$ or #6", "DEBUG": False}, "gid": 1001}
    services["api"]["config_files"].append(env)
    found = rendered(services)
    [file] = [file for file in found["files"] if file["path"] == "config/api/app/.env"]
    assert file["content"] == f"TOKEN={secret}\nPRICE='5$ or #6'\nDEBUG=false\n"
    assert (file["mode"], file["gid"]) == ("0440", 1001)
    assert found["manifest"]["secrets"]["api:/app/.env#TOKEN"] == fingerprint(KEY, secret)
    assert secret not in json.dumps([found["compose"], found["manifest"]])
    before = release_id(services)
    env["content"] = {**env["content"], "DEBUG": True}  # type: ignore[dict-item]
    assert release_id(services) != before


@pytest.mark.parametrize("value", ["${DATABASE_URL}", "5$ or $$6", "ü\u2028", 5, 1.5, None, True, [], {}])
def test_a_value_of_a_json_file_survives(value: object, services: Services) -> None:
    services["api"]["config_files"][0]["content"] = {"at": value}
    assert json.loads(rendered(services)["files"][0]["content"]) == {"at": value}


def test_a_dollar_in_the_environment_or_a_command_is_doubled_for_compose(services: Services) -> None:
    services["api"]["command"] = ["serve", "--price=5$"]
    body = api(services)
    assert body["environment"]["SHOP_PRICE"] == "5$$ or $${PRICE}"
    assert body["command"] == ["serve", "--price=5$$"]


def test_values_of_the_environment_become_the_text_that_a_program_expects(services: Services) -> None:
    services["api"]["env"] = {"A": True, "B": False, "C": 5, "D": 1.5, "E": ""}
    assert api(services)["environment"] == {"A": "true", "B": "false", "C": "5", "D": "1.5", "E": ""}


# --- the id -------------------------------------------------------------------------------------------------------


def test_project_and_labels_carry_the_id(services: Services) -> None:
    found = rendered(services)
    assert found["compose"]["name"] == f"shop-production-{found['manifest']['id'][:8]}"
    labels = found["compose"]["services"]["api"]["labels"]
    assert labels[LABEL_RELEASE] == found["manifest"]["id"]
    assert labels[LABEL_NAME] == "shop-production"


def test_the_same_inventory_gives_the_same_id(services: Services) -> None:
    assert release_id(services) == release_id(json.loads(json.dumps(services)))


def test_the_order_of_keys_does_not_matter(services: Services) -> None:
    turned = {"api": dict(reversed(services["api"].items()))}
    turned["api"]["env"] = dict(reversed(turned["api"]["env"].items()))
    assert release_id(turned) == release_id(services)


@pytest.mark.parametrize(
    "change",
    [
        {"env": {"SHOP_ROOT": "/elsewhere"}},
        {"secret_env": {"TOKEN": "x" * 32}},
        {"user": "1002:1002"},
        {"publish": 4101},
        {"resources": {"memory": "1g"}},
        {"config_files": []},
        {"tmpfs": []},
        {"init": True},
        {"health": {"path": "/elsewhere"}},
        {"route": {"hosts": ["shop.example"]}},
        {"route": {"hosts": ["shop.example"], "tls": {"mode": "own", "certificate": "c", "key": "k"}}},
        {"migrate": {"up": ["up"], "plan": ["plan"], "status": ["status"]}},
    ],
)
def test_a_change_of_what_runs_or_what_it_promises_is_a_new_release(change: dict[str, Any], services: Services) -> None:
    before = release_id(services)
    services["api"].update(change)
    assert release_id(services) != before


@pytest.mark.parametrize(
    "change",
    [
        {"tag": "sha-0377abc"},
        {"required_env": []},
        {"config_schema": []},
    ],
)
def test_a_change_of_what_is_only_said_about_it_replaces_no_container(
    change: dict[str, Any], services: Services
) -> None:
    before = release_id(services)
    services["api"].update(change)
    assert release_id(services) == before


def test_name_environment_digest_and_key_are_part_of_the_id(services: Services) -> None:
    ids = {
        release_id(services),
        release_id(services, name="shop-staging"),
        release_id(services, environment="staging"),
        release_id(services, digests={"api": "sha256:" + "2" * 64}),
        release_id(services, key="l" * 32),
    }
    assert len(ids) == 5


def test_what_is_rendered_is_what_a_host_takes(services: Services) -> None:
    finished = render.finish(rendered(services), "compose: text\n", KEY)
    files = [{**file, "content": finished["contents"][file["path"]]} for file in finished["release"]["files"]]
    release = msgspec.convert({**finished["release"], "files": files}, Release)
    assert release.manifest.services["api"].env == {}
    assert release.manifest.services["api"].config_files == []
    assert release.manifest.services["api"].migrate is not None


@pytest.mark.parametrize("name", ["Shop", "a", "shop_1", "../shop"])
def test_a_name_that_compose_would_refuse_is_refused_first(name: str, services: Services) -> None:
    with pytest.raises(UsageError, match=r"cannot be a slipway_name\. Use 2 to 41 lower-case letters"):
        rendered(services, name=name)


OWNER = "never-to-be-seen-owner-0123456789-abcdef"


def with_owner(services: Services) -> Services:
    """Migrations run as another role, told by a file and by the environment."""
    services["api"]["migrate"] |= {
        "secret_env": {"OWNER_PIN": OWNER},
        "config_files": [{"path": "/app/config/db.json", "content": {"url": f"postgresql://owner:{OWNER}@db/shop"}}],
    }
    return services


def test_what_migrations_alone_see_is_in_files_of_their_own_and_nowhere_else(services: Services) -> None:
    found = rendered(with_owner(services))
    contents = {file["path"]: file["content"] for file in found["files"]}
    assert [path for path, text in contents.items() if OWNER in text] == [
        "config/api@migrate/app/config/db.json",
        "config/api@migrate/.environment.json",
    ]
    assert OWNER not in json.dumps([found["compose"], found["manifest"]])
    assert {name for name in found["manifest"]["secrets"] if "@migrate" in name} == {
        "api@migrate:/app/config/db.json#url",
        "api@migrate:/.environment.json#secret_env.OWNER_PIN",
    }


def test_another_owner_of_the_schema_is_a_new_release(services: Services) -> None:
    before = release_id(services)
    assert release_id(with_owner(services)) != before
