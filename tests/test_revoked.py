"""A secret that was revoked is never restored: what is marked, and the release that is made instead of an old one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from slipway.errors import PreflightError, SlipwayError
from slipway.release import LABEL_RELEASE, File, Release
from slipway.render import finish, render
from slipway.revoked import MADE, Revocation, Revoked, WayBack, changed, plan_revocation, renewed, way_back
from slipway.secrets import held, in_file
from slipway.store import Store

KEY = "k" * 32
CONFIG = "config/api/app/config/environments/production.json"
JWT = "api:/app/config/environments/production.json#auth.jwtSecret"
DATABASE = "api:/app/config/environments/production.json#database.url"
TOKEN = "api:env:API_TOKEN"
TLS = "api:tls:key"

Services = dict[str, Any]


def release(services: Services) -> Release:
    rendered = render(services, name="shop", environment="p", digests={"api": "sha256:" + "1" * 64}, key=KEY)
    finished = finish(rendered, yaml.safe_dump(rendered["compose"], sort_keys=False), KEY)
    files = [{**file, "content": finished["contents"][file["path"]]} for file in finished["release"]["files"]]
    return msgspec.convert({**finished["release"], "files": files}, Release)


def version(
    services: Services, when: str, *, site: str = "", host: str = "db", more: dict[str, Any] | None = None
) -> Release:
    """A release whose secrets are all of the time `when`."""
    api = json.loads(json.dumps(services["api"]))
    content = {
        "auth": {"jwtSecret": f"jwt-of-{when}"},
        "database": {"url": f"postgresql://shop:pw-{when}@{host}/shop"},
        "site": site or when,
        **(more or {}),
    }
    api["config_files"][0]["content"] = content
    api["config_files"].append({"path": "/app/notes.txt", "content": f"written {when}"})
    api["secret_env"] = {"API_TOKEN": f"$token-of-{when}"}
    tls = {"mode": "own", "certificate": f"certificate-of-{when}", "key": f"tls-of-{when}"}
    api["route"] = {"hosts": ["shop.example"], "tls": tls}
    api["replicas"] = 2
    return release({"api": api})


def made(old: Release, today: Release) -> Release:
    return renewed(old, today, yaml.safe_load)


def text(found: Release, path: str) -> str:
    return next(file.content for file in found.files if file.path == path)


def document(found: Release) -> dict[str, Any]:
    read: dict[str, Any] = yaml.safe_load(text(found, "compose.yml"))
    return read


def kept(tmp_path: Path, *releases: Release) -> Store:
    """A store that keeps these releases, the last one current."""
    store = Store("shop", tmp_path)
    for one in releases:
        store.keep(store.place(one))
        store.point(one.manifest.id)
    return store


def revoke(store: Store, name: str, *of: Release) -> Revoked:
    revoked = Revoked(store.folder)
    values = [one.manifest.secrets[name] for one in of]
    revoked.add(
        Revocation(secret=name, fingerprint=value, at="2025-01-01T12:00:00", by="alice", reason="It leaked.")
        for value in values
    )
    return revoked


# --- the names --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "names"),
    [
        ({"auth": {"jwtSecret": "a"}}, ["#auth.jwtSecret"]),
        ({"tokens": ["a", {"b": "c"}]}, ["#tokens[0]", "#tokens[1].b"]),
        ({"db": {"url": "postgresql://u:pw@h/d"}, "site": "https://h/"}, ["#db.url"]),
        ({"auth.jwt": "a", "auth": {"jwt": "b"}}, ['#["auth.jwt"]', "#auth.jwt"]),
        ([{"password": "a"}], ["#[0].password"]),
        ({"port": 4000, "password": "", "apiKey": None}, []),
    ],
)
def test_a_secret_of_a_json_file_has_a_name_that_says_where_it_stands(content: object, names: list[str]) -> None:
    file = File(path="config/api/app/a.json", content=json.dumps(content))
    assert list(held([file], {})) == [f"api:/app/a.json{name}" for name in names]


@pytest.mark.parametrize("content", ["password=a", "5", '"password"', "{", ""])
def test_a_file_that_is_no_json_object_has_no_secrets_that_anyone_could_name(content: str) -> None:
    assert in_file(File(path="config/api/app/a.json", content=content)) == {}


def test_of_a_url_the_password_is_the_secret_so_that_another_host_changes_none(services: Services) -> None:
    one, other = version(services, "monday", host="db-1"), version(services, "monday", host="db-2")
    assert one.manifest.secrets == other.manifest.secrets
    assert one.manifest.id != other.manifest.id


# --- what is marked ---------------------------------------------------------------------------------------------------


def test_every_value_but_todays_is_marked(tmp_path: Path) -> None:
    store = Revoked(tmp_path)
    kept_ones = [{"a": "1"}, {"a": "2", "b": "1b"}, {"a": "3"}]
    assert plan_revocation(["a"], today=kept_ones[-1], kept=kept_ones, revoked=store) == {"a": ["1", "2"]}


def test_a_secret_that_is_used_no_more_can_be_revoked_whole(tmp_path: Path) -> None:
    assert plan_revocation(["a"], today={}, kept=[{"a": "1"}, {}], revoked=Revoked(tmp_path)) == {"a": ["1"]}


def test_a_secret_that_was_not_rotated_is_not_revoked(tmp_path: Path) -> None:
    with pytest.raises(PreflightError, match=r"Today's value of a is the only one .* Rotate it first: change it in"):
        plan_revocation(["a"], today={"a": "1"}, kept=[{"a": "1"}], revoked=Revoked(tmp_path))


def test_a_value_that_another_secret_still_has_today_is_not_revoked(tmp_path: Path) -> None:
    with pytest.raises(PreflightError, match=r"An older value of a is still used today, for b\. Rotate it there too"):
        plan_revocation(["a"], today={"a": "2", "b": "1"}, kept=[{"a": "1"}], revoked=Revoked(tmp_path))


def test_a_name_that_is_not_known_is_refused_with_those_that_are(tmp_path: Path) -> None:
    with pytest.raises(PreflightError, match=r"has a secret c\. The secrets that are known: a, b\."):
        plan_revocation(["c"], today={"a": "1"}, kept=[{"b": "1"}], revoked=Revoked(tmp_path))


def test_what_is_marked_already_is_not_marked_again_and_is_no_mistake(tmp_path: Path, services: Services) -> None:
    old, new = version(services, "monday"), version(services, "tuesday")
    store = kept(tmp_path, old, new)
    revoked = revoke(store, JWT, old)
    secrets = [old.manifest.secrets, new.manifest.secrets]
    assert plan_revocation([JWT], today=secrets[1], kept=secrets, revoked=revoked) == {}
    assert plan_revocation([JWT], today=secrets[1], kept=secrets[1:], revoked=revoked) == {}


def test_what_was_revoked_is_kept_for_root_alone_and_without_a_value(tmp_path: Path, services: Services) -> None:
    old = version(services, "monday")
    store = kept(tmp_path, old)
    revoked = revoke(store, JWT, old)
    revoke(store, TOKEN, old)
    path = tmp_path / "shop/revoked.json"
    assert path.stat().st_mode & 0o777 == 0o600
    assert "monday" not in path.read_text()
    assert [(one.secret, one.by, one.reason) for one in revoked.read()] == [
        (JWT, "alice", "It leaked."),
        (TOKEN, "alice", "It leaked."),
    ]


def test_a_list_that_cannot_be_read_is_never_taken_for_an_empty_one(tmp_path: Path) -> None:
    (tmp_path / "revoked.json").write_text("[{")
    with pytest.raises(SlipwayError, match=r"What was revoked cannot be read: .* was edited by hand\. Mend it, or"):
        Revoked(tmp_path).fingerprints()


# --- the release that is made -----------------------------------------------------------------------------------------


def test_it_has_the_old_image_and_configuration_and_todays_secrets(services: Services) -> None:
    old, today = version(services, "monday", host="db-1"), version(services, "tuesday", host="db-2")
    found = made(old, today)
    assert json.loads(text(found, CONFIG)) == {
        "auth": {"jwtSecret": "jwt-of-tuesday"},
        "database": {"url": "postgresql://shop:pw-tuesday@db-1/shop"},
        "site": "monday",
    }
    assert text(found, "config/api/app/notes.txt") == "written monday"
    assert (text(found, "edge/api.key"), text(found, "edge/api.crt")) == ("tls-of-tuesday", "certificate-of-tuesday")
    tokens = {name: body["environment"]["API_TOKEN"] for name, body in document(found)["services"].items()}
    assert tokens == {"api": "$$token-of-tuesday", "api-2": "$$token-of-tuesday"}
    assert found.manifest.images == old.manifest.images
    assert found.manifest.secrets == today.manifest.secrets
    assert found.manifest.made_from == old.manifest.id


def test_no_older_value_is_left_in_it(services: Services) -> None:
    found = made(version(services, "monday", site="s"), version(services, "tuesday", site="t"))
    whole = json.dumps(msgspec.to_builtins(found))
    assert [word for word in ("jwt-of-monday", "pw-monday", "token-of-monday", "tls-of-monday") if word in whole] == []


def test_it_is_a_release_of_its_own_with_an_id_that_every_host_finds(services: Services) -> None:
    old, today = version(services, "monday"), version(services, "tuesday")
    found = made(old, today)
    assert found == made(old, today)
    assert len(found.manifest.id) == len(old.manifest.id)
    assert int(found.manifest.id, 16)
    assert len({old.manifest.id, today.manifest.id, found.manifest.id}) == 3
    assert made(old, version(services, "wednesday")).manifest.id != found.manifest.id
    assert made(old, version(services, "tuesday", site="s")).manifest.id == found.manifest.id


def test_its_compose_file_is_the_old_one_but_for_the_id_and_the_secrets(services: Services) -> None:
    old, today = version(services, "monday"), version(services, "tuesday")
    found, expected = made(old, today), document(old)
    expected["name"] = found.manifest.project
    for body in expected["services"].values():
        body["labels"][LABEL_RELEASE] = found.manifest.id
        body["environment"]["API_TOKEN"] = "$$token-of-tuesday"
    assert document(found) == expected


def test_files_keep_their_owners_and_modes(services: Services) -> None:
    old = version(services, "monday")
    found = made(old, version(services, "tuesday"))
    about = [(file.path, file.mode, file.uid, file.gid) for file in old.files]
    assert [(file.path, file.mode, file.uid, file.gid) for file in found.files] == about


def test_a_fingerprint_that_the_host_cannot_make_is_called_so_and_follows_from_what_was_put_in(
    services: Services,
) -> None:
    old, today = version(services, "monday"), version(services, "tuesday")
    found = made(old, today).manifest.fingerprints
    assert found["config/api/app/notes.txt"] == old.manifest.fingerprints["config/api/app/notes.txt"]
    assert found["edge/api.key"] == today.manifest.fingerprints["edge/api.key"]
    assert {path for path, value in found.items() if value.startswith(MADE)} == {CONFIG, "compose.yml"}
    assert found[CONFIG] != made(old, version(services, "wednesday")).manifest.fingerprints[CONFIG]


def test_one_that_was_made_can_be_made_anew(services: Services) -> None:
    old, tuesday = version(services, "monday"), version(services, "tuesday")
    found = made(made(old, tuesday), version(services, "wednesday"))
    assert json.loads(text(found, CONFIG))["auth"] == {"jwtSecret": "jwt-of-wednesday"}
    assert json.loads(text(found, CONFIG))["site"] == "monday"


# --- going back -------------------------------------------------------------------------------------------------------


def test_a_way_back_names_the_secrets_that_get_an_older_value(tmp_path: Path, services: Services) -> None:
    old, today = version(services, "monday"), version(services, "tuesday")
    store = kept(tmp_path, old, today)
    back = way_back(store, old.manifest, Revoked(store.folder))
    assert (back.manifest.id, back.made) == (old.manifest.id, None)
    assert back.said == f"It brings back the older values of: {JWT}, {DATABASE}, {TOKEN}, {TLS}."


def test_a_way_back_to_the_same_secrets_says_nothing_of_them(tmp_path: Path, services: Services) -> None:
    old, today = version(services, "monday"), version(services, "monday", site="another")
    assert way_back(kept(tmp_path, old, today), old.manifest, Revoked(tmp_path / "shop")).said == ""


def test_what_is_said_of_a_release_that_is_made(services: Services) -> None:
    old, today = version(services, "monday"), version(services, "tuesday")
    found = made(old, today)
    back = WayBack(manifest=found.manifest, made=found, older=[], revoked=[JWT, TOKEN])
    assert back.said == (
        f"A new release {found.manifest.id} is made of the image and configuration of {old.manifest.id}, with today's "
        f"secrets, because {JWT}, {TOKEN} were revoked."
    )
    assert back.reason == f"Made from {old.manifest.id} with today's secrets: {JWT}, {TOKEN} were revoked."


def test_a_secret_that_is_gone_today_is_an_older_value(services: Services) -> None:
    old, today = version(services, "monday", more={"apiKey": "a"}), version(services, "monday")
    assert changed(old.manifest.secrets, today.manifest.secrets) == [
        "api:/app/config/environments/production.json#apiKey"
    ]


def test_a_revoked_value_with_none_of_today_to_put_in_its_place_is_refused(tmp_path: Path, services: Services) -> None:
    old, today = version(services, "monday", more={"apiKey": "leaked"}), version(services, "tuesday")
    store = kept(tmp_path, old, today)
    name = "api:/app/config/environments/production.json#apiKey"
    with pytest.raises(
        PreflightError, match=rf"The release {old.manifest.id} holds a revoked value of \S+#apiKey, and"
    ):
        way_back(store, old.manifest, revoke(store, name, old))


def test_where_nothing_serves_there_is_no_secret_of_today(tmp_path: Path, services: Services) -> None:
    old = version(services, "monday")
    store = kept(tmp_path, old)
    revoked = revoke(store, JWT, old)
    store.point(None)
    with pytest.raises(PreflightError, match="there is no value of today to put in its place"):
        way_back(store, old.manifest, revoked)


def test_a_value_is_revoked_wherever_it_stands(tmp_path: Path, services: Services) -> None:
    old = version(services, "monday", more={"apiKey": "jwt-of-monday"})
    store = kept(tmp_path, old)
    assert revoke(store, JWT, old).in_release(old.manifest) == [
        "api:/app/config/environments/production.json#apiKey",
        JWT,
    ]


def test_an_older_kits_release_that_may_hold_a_revoked_value_is_refused(tmp_path: Path, services: Services) -> None:
    old, today = version(services, "monday"), version(services, "tuesday")
    unnoted = msgspec.structs.replace(old, manifest=msgspec.structs.replace(old.manifest, secrets={}))
    store = kept(tmp_path, unnoted, today)
    assert way_back(store, unnoted.manifest, Revoked(store.folder)).said == ""
    with pytest.raises(PreflightError, match="did not note its secrets, so nobody can tell whether it holds a revoked"):
        way_back(store, unnoted.manifest, revoke(store, JWT, old))


def test_a_release_that_was_edited_by_hand_is_not_made_anew(tmp_path: Path, services: Services) -> None:
    old, today = version(services, "monday"), version(services, "tuesday")
    store = kept(tmp_path, old, today)
    path = store.path(today.manifest.id) / CONFIG
    path.write_text(path.read_text().replace("jwt-of-tuesday", "jwt-by-hand"))
    with pytest.raises(PreflightError, match=f"The release {today.manifest.id} is not as it was staged: {CONFIG}"):
        way_back(store, old.manifest, revoke(store, JWT, old))
