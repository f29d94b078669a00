"""What the docker role decides and writes, without a host."""

from __future__ import annotations

import importlib.util
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any, ClassVar

import ansible.module_utils
import jinja2
import pytest
import yaml

ROOT = Path(__file__).parents[1]
ROLE = ROOT / "roles" / "docker"


def load(path: str) -> ModuleType:
    """Import a plugin the way Ansible does: by its path."""
    spec = importlib.util.spec_from_file_location(Path(path).stem, ROOT / path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


# What Ansible sends along with a module is found beside its own.
ansible.module_utils.__path__.append(str(ROOT / "plugins/module_utils"))
apt_sources = load("plugins/module_utils/apt_sources.py")
decide = load("plugins/filter/docker_engine.py")
install = load("plugins/modules/docker_packages.py")

DEFAULTS: dict[str, Any] = yaml.safe_load((ROLE / "defaults/main.yml").read_text())
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"
ENGINE = {"answers": True, "version": "26.1.5+dfsg1", "compose": "2.26.1-4", "buildx": "0.13.1+ds1", "problem": ""}
NO_ENGINE = {"answers": False, "version": "", "compose": "", "buildx": "", "problem": "There is no docker command."}
BOOKWORM = [
    {
        "uris": ["http://mirror.example/debian"],
        "suites": ["bookworm", "bookworm-updates"],
        "components": ["main", "contrib"],
        "signed_by": KEYRING,
        "types": ["deb"],
    },
    {
        "uris": ["http://mirror.example/debian-security"],
        "suites": ["bookworm-security"],
        "components": ["main"],
        "signed_by": KEYRING,
        "types": ["deb"],
    },
]


def a_host(**other: Any) -> dict[str, Any]:
    """A bare Debian 12 as docker_host_info describes it."""
    return {
        "distribution": "debian",
        "version": "12",
        "suite": "bookworm",
        "name": "Debian GNU/Linux 12 (bookworm)",
        "systemd": True,
        "sources": BOOKWORM,
        "installed": False,
        "pending": False,
        "daemon_config": {},
        "record": {},
        "engine": NO_ENGINE,
        **other,
    }


def settings(**other: Any) -> dict[str, Any]:
    """The role's defaults for daemon.json, without the role's prefix."""
    return {key.removeprefix("docker_"): value for key, value in DEFAULTS.items()} | other


def render(template: str, **variables: Any) -> str:
    """Lay out one of the role's templates the way Ansible does."""
    # Files of apt are no HTML.
    lookup = jinja2.Environment(  # noqa: S701
        loader=jinja2.FileSystemLoader(ROLE / "templates"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        keep_trailing_newline=True,
    )
    return lookup.get_template(template).render(**variables)


class TestAptSources:
    def test_one_line_format(self) -> None:
        text = f"""
        # the mirror
        deb [arch=amd64 signed-by={KEYRING}] http://mirror.example/debian trixie main contrib  # with a remark
        deb-src http://mirror.example/debian trixie main
        #deb http://old.example/debian sid main
        nonsense
        """
        binary, source = apt_sources.parse_one_line(text)
        assert binary.uris == ("http://mirror.example/debian",)
        assert binary.suites == ("trixie",)
        assert binary.components == ("main", "contrib")
        assert binary.signed_by == KEYRING
        assert source.types == ("deb-src",)
        assert source.signed_by == ""

    def test_deb822_format(self) -> None:
        text = (
            f"# the mirror\nTypes: deb deb-src\nURIs: http://mirror.example/debian\n# inside\n"
            f"Suites: trixie trixie-updates\nComponents: main\nSigned-By: {KEYRING}\n\n"
            "Enabled: no\nTypes: deb\nURIs: http://off.example/debian\nSuites: sid\nComponents: main\n\n"
            "Types: deb\nURIs:\n http://a.example/debian\n http://b.example/debian\nSuites: trixie\nComponents: main\n"
        )
        first, continued = apt_sources.parse_deb822(text)
        assert first.types == ("deb", "deb-src")
        assert first.suites == ("trixie", "trixie-updates")
        assert first.signed_by == KEYRING
        assert continued.uris == ("http://a.example/debian", "http://b.example/debian")

    def test_a_key_within_the_source_keeps_its_lines(self) -> None:
        stanza = "Types: deb\nURIs: http://v.example\nSuites: trixie\n"
        text = stanza + "Signed-By:\n -----BEGIN-----\n .\n abc\n -----END-----\n"
        (source,) = apt_sources.parse_deb822(text)
        assert source.signed_by == "-----BEGIN-----\n .\n abc\n -----END-----"

    def test_both_formats_are_read_and_disabled_files_are_not(self, tmp_path: Path) -> None:
        parts = tmp_path / "sources.list.d"
        parts.mkdir()
        (tmp_path / "sources.list").write_text("deb http://a.example/debian trixie main\n")
        (parts / "b.list").write_text("deb http://b.example/debian trixie main\n")
        (parts / "c.sources").write_text("Types: deb\nURIs: http://c.example\nSuites: trixie\nComponents: main\n")
        (parts / "d.list.disabled").write_text("deb http://d.example/debian trixie main\n")
        assert [source.uris[0][7] for source in apt_sources.read_sources(tmp_path)] == ["a", "b", "c"]

    def test_a_machine_without_sources_has_none(self, tmp_path: Path) -> None:
        assert apt_sources.read_sources(tmp_path) == []


class TestPlan:
    def test_debian_12_takes_four_packages_of_the_next_suite_off_its_own_mirror(self) -> None:
        plan = decide.docker_plan(a_host(), source="distro")
        assert plan["problem"] == ""
        assert plan["install"]
        assert plan["packages"] == ["docker.io", "docker-cli", "docker-compose", "docker-buildx"]
        assert [(entry["uris"], entry["suites"], entry["components"]) for entry in plan["sibling"]] == [
            (["http://mirror.example/debian"], ["trixie"], ["main"]),
            (["http://mirror.example/debian-security"], ["trixie-security"], ["main"]),
        ]
        assert {entry["signed_by"] for entry in plan["sibling"]} == {KEYRING}

    def test_debian_13_takes_its_own(self) -> None:
        plan = decide.docker_plan(a_host(version="13", suite="trixie"), source="distro")
        assert plan["install"]
        assert plan["sibling"] == []

    def test_a_mirror_without_security_updates_will_do(self) -> None:
        plan = decide.docker_plan(a_host(sources=BOOKWORM[:1]), source="distro")
        assert [entry["suites"] for entry in plan["sibling"]] == [["trixie"]]

    def test_debian_12_without_a_mirror_is_refused(self) -> None:
        plan = decide.docker_plan(a_host(sources=BOOKWORM[1:]), source="distro")
        assert "no source for its own suite bookworm" in plan["problem"]

    @pytest.mark.parametrize(
        "host",
        [
            {"distribution": "ubuntu", "version": "24.04", "name": "Ubuntu 24.04.1 LTS"},
            {"distribution": "debian", "version": "11", "name": "Debian GNU/Linux 11 (bullseye)"},
            {"distribution": "debian", "version": "", "name": "Debian GNU/Linux forky/sid"},
        ],
    )
    def test_another_system_is_refused_by_name(self, host: dict[str, str]) -> None:
        plan = decide.docker_plan(a_host(**host), source="distro")
        assert plan["problem"] == (
            f"This host runs {host['name']}, and the kit supports Debian 12 and 13. "
            "Use a host with one of these; nothing was changed."
        )

    @pytest.mark.parametrize(("answers", "chosen"), [(True, "upstream"), (False, "distro")])
    def test_auto_takes_upstream_when_it_answers(self, answers: bool, chosen: str) -> None:
        plan = decide.docker_plan(
            a_host(), source="auto", environment="local", upstream_url="http://v.example", upstream_answers=answers
        )
        assert plan["source"] == chosen

    def test_auto_keeps_what_it_once_chose(self) -> None:
        plan = decide.docker_plan(
            a_host(record={"source": "distro"}, installed=True, engine=ENGINE),
            source="auto",
            environment="local",
            upstream_url="http://v.example",
            upstream_answers=True,
        )
        assert plan["source"] == "distro"
        assert not plan["install"]

    @pytest.mark.parametrize("environment", ["", "staging", "production"])
    def test_auto_is_for_local_alone(self, environment: str) -> None:
        plan = decide.docker_plan(a_host(), source="auto", environment=environment)
        assert "for the environment local alone" in plan["problem"]

    def test_a_changed_source_is_refused(self) -> None:
        plan = decide.docker_plan(
            a_host(record={"source": "distro"}, installed=True), source="upstream", upstream_url="http://v.example"
        )
        assert "was installed with docker_source distro, and the inventory says upstream" in plan["problem"]

    def test_upstream_needs_its_url(self) -> None:
        assert "docker_upstream_url is empty" in decide.docker_plan(a_host(), source="upstream")["problem"]

    @pytest.mark.parametrize("there", [{"installed": True}, {"engine": ENGINE}])
    def test_an_engine_that_was_there_before_is_left_alone(self, there: dict[str, Any]) -> None:
        plan = decide.docker_plan(a_host(**there), source="distro")
        assert plan["foreign"]
        assert not plan["install"]

    def test_an_installation_that_was_cut_off_is_finished(self) -> None:
        half = {**NO_ENGINE, "compose": "2.26.1-4"}
        assert decide.docker_plan(a_host(record={"source": "distro"}, installed=True, engine=half), source="distro")[
            "install"
        ]


class TestDaemonConfig:
    def test_what_it_holds_by_default(self) -> None:
        assert decide.docker_daemon_config(settings()) == {
            "live-restore": True,
            "log-driver": "json-file",
            "log-opts": {"max-file": "3", "max-size": "10m"},
        }

    def test_what_an_inventory_adds(self) -> None:
        config = decide.docker_daemon_config(
            settings(
                address_pools=[{"base": "10.200.0.0/16", "size": 24}],
                insecure_registries=["10.0.0.1:5000"],
                registry_mirrors=["https://mirror.example"],
                data_root="/data/docker",
                storage_driver="overlay2",
                daemon_options={"debug": True},
            )
        )
        assert config["default-address-pools"] == [{"base": "10.200.0.0/16", "size": 24}]
        assert config["insecure-registries"] == ["10.0.0.1:5000"]
        assert config["registry-mirrors"] == ["https://mirror.example"]
        assert config["data-root"] == "/data/docker"
        assert config["storage-driver"] == "overlay2"
        assert config["debug"] is True

    @pytest.mark.parametrize(
        ("changed", "asks"),
        [
            ({}, "none"),
            ({"insecure-registries": ["10.0.0.1:5000"]}, "reload"),
            ({"live-restore": False}, "reload"),
            ({"log-driver": "local"}, "restart"),
            ({"live-restore": False, "data-root": "/data"}, "restart"),
        ],
    )
    def test_what_a_change_asks_of_the_engine(self, changed: dict[str, Any], asks: str) -> None:
        config = decide.docker_daemon_config(settings())
        assert decide.docker_daemon_change(config, {**config, **changed}) == asks
        assert decide.docker_daemon_change({**config, **changed}, config) == asks


class TestRegistryTrust:
    REGISTRIES: ClassVar = [
        {"host": "registry.example:5000", "ca": "-- one --"},
        {"host": "registry.example", "username": "deploy", "password": "hunter2"},
        {"host": "mirror.example", "ca": "-- two --\n\n"},
    ]
    THERE: ClassVar = {"registry.example:5000": "-- one --\n", "mirror.example": "-- two --\n"}

    def test_a_certificate_that_is_not_there_or_another_one_is_written(self) -> None:
        trust = decide.docker_registry_trust(self.REGISTRIES, {"mirror.example": "-- old --\n"})
        assert trust == {"write": self.THERE, "remove": []}

    def test_those_that_are_there_are_left_alone(self) -> None:
        assert decide.docker_registry_trust(self.REGISTRIES, self.THERE) == {"write": {}, "remove": []}

    def test_one_that_the_inventory_no_longer_gives_is_removed(self) -> None:
        trust = decide.docker_registry_trust(self.REGISTRIES[:2], self.THERE)
        assert trust == {"write": {}, "remove": ["mirror.example"]}
        assert decide.docker_registry_trust([], self.THERE)["remove"] == ["mirror.example", "registry.example:5000"]


class TestNextState:
    CONFIG = decide.docker_daemon_config(settings())

    def next_state(self, *, foreign: bool = False, renewed: bool = False, **host: Any) -> str:
        facts = a_host(**{"engine": ENGINE, "daemon_config": self.CONFIG, **host})
        state: str = decide.docker_next_state(facts, self.CONFIG, foreign=foreign, renewed=renewed)
        return state

    def test_an_engine_that_runs_as_it_should_is_not_touched(self) -> None:
        assert self.next_state() == ""

    def test_one_that_is_down_is_started_whoever_installed_it(self) -> None:
        assert self.next_state(engine=NO_ENGINE) == "started"
        assert self.next_state(engine=NO_ENGINE, foreign=True) == "started"

    def test_a_foreign_one_is_never_restarted(self) -> None:
        assert self.next_state(foreign=True, daemon_config={}, pending=True, renewed=True) == ""

    def test_new_packages_or_certificates_ask_for_a_restart(self) -> None:
        assert self.next_state(renewed=True) == "restarted"

    def test_a_run_that_was_cut_off_before_the_restart_is_made_good(self) -> None:
        assert self.next_state(pending=True) == "restarted"

    def test_where_a_reload_is_enough_nothing_is_restarted(self) -> None:
        assert self.next_state(daemon_config={**self.CONFIG, "insecure-registries": ["10.0.0.1:5000"]}) == "reloaded"


class TestMinimum:
    def test_what_debian_ships_is_new_enough(self) -> None:
        assert decide.docker_too_old(ENGINE, DEFAULTS["docker_minimum"]) == ""

    @pytest.mark.parametrize(
        ("part", "version", "sentence"),
        [
            ("version", "20.10.24+dfsg1", "The Docker engine on this host is 20.10.24+dfsg1, and the kit needs 25.0"),
            ("compose", "2.4.1", "The Docker Compose plugin on this host is 2.4.1, and the kit needs 2.20"),
            ("compose", "", "The Docker Compose plugin is missing on this host, and the kit needs 2.20"),
            ("buildx", "0.9.0", "The Docker buildx plugin on this host is 0.9.0, and the kit needs 0.11"),
        ],
    )
    def test_what_is_older_is_named(self, part: str, version: str, sentence: str) -> None:
        answer = decide.docker_too_old({**ENGINE, part: version}, DEFAULTS["docker_minimum"])
        assert answer == f"{sentence} or newer. {decide.RENEW}"


class TestFilesForApt:
    PLAN = decide.docker_plan(a_host(), source="distro")

    def test_the_sources_read_back_as_the_plan_says(self) -> None:
        sources = apt_sources.parse_deb822(render("sibling.sources.j2", __docker_plan=self.PLAN))
        assert [(source.uris[0], source.suites[0], source.signed_by) for source in sources] == [
            ("http://mirror.example/debian", "trixie", KEYRING),
            ("http://mirror.example/debian-security", "trixie-security", KEYRING),
        ]

    def test_nothing_else_is_taken_from_the_next_suite(self) -> None:
        everything, four = re.split(r"\n\n", render("sibling.pref.j2", __docker_plan=self.PLAN))
        assert "Package: *\nPin: release n=trixie*\nPin-Priority: 100" in everything
        assert four.strip() == (
            "Package: docker.io docker-cli docker-compose docker-buildx\nPin: release n=trixie*\nPin-Priority: 990"
        )

    def test_the_vendors_key_stands_within_its_source(self) -> None:
        key = "-----BEGIN PGP PUBLIC KEY BLOCK-----\n\nabc\n-----END PGP PUBLIC KEY BLOCK-----\n"
        (source,) = apt_sources.parse_deb822(
            render(
                "upstream.sources.j2",
                docker_upstream_url="http://v.example/debian",
                docker_upstream_key=key,
                __docker_host=a_host(),
            )
        )
        assert source.suites == ("bookworm",)
        assert source.signed_by.splitlines()[0] == "-----BEGIN PGP PUBLIC KEY BLOCK-----"
        assert source.signed_by.splitlines()[1].strip() == "."

    @pytest.mark.parametrize("name", ["docker.io", "runc", "containerd"])
    def test_unattended_upgrades_leave_the_engine_alone(self, name: str) -> None:
        rendered = render("unattended-upgrades.conf.j2", __docker_plan=self.PLAN)
        patterns = re.findall(r'^    "(.+)";$', rendered, re.MULTILINE)
        # unattended-upgrades matches its patterns from the start of the name
        assert any(re.match(pattern, name) for pattern in patterns)
        assert not any(re.match(pattern, "docker.io-doc") for pattern in patterns)


def test_what_apt_shall_go_by_is_there_before_it_is_asked_and_told_as_a_difference(tmp_path: Path) -> None:
    file = {"path": str(tmp_path / "new/record.json"), "content": "{}\n"}
    for check, there in ((True, False), (False, True)):
        [told] = install.place([file], check=check)
        assert (told["after_header"], told["before"], told["after"]) == (file["path"], "", "{}\n")
        assert Path(file["path"]).exists() is there
    assert install.place([file], check=False) == []


class TestNoStarts:
    """While packages are installed, no service is started, and after that the host decides again."""

    @pytest.fixture(autouse=True)
    def _here(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.policy, self.kept = tmp_path / "policy-rc.d", tmp_path / "policy-rc.d.slipway"
        monkeypatch.setattr(install, "POLICY", self.policy)
        monkeypatch.setattr(install, "POLICY_KEPT", self.kept)

    def test_a_host_without_a_policy_has_none_after_that(self, tmp_path: Path) -> None:
        with install.no_starts():
            assert subprocess.run([self.policy], check=False).returncode == 101
        assert list(tmp_path.iterdir()) == []

    def test_a_policy_of_the_host_is_its_own_again(self, tmp_path: Path) -> None:
        self.policy.write_text("#!/bin/sh\nexit 0\n")
        with install.no_starts():
            assert self.policy.read_text() == install.NO_STARTS
        assert self.policy.read_text() == "#!/bin/sh\nexit 0\n"
        assert list(tmp_path.iterdir()) == [self.policy]

    @pytest.mark.parametrize("own", ["", "#!/bin/sh\nexit 0\n"])
    def test_what_a_run_left_that_was_cut_off_is_put_in_order(self, own: str, tmp_path: Path) -> None:
        self.policy.write_text(install.NO_STARTS)
        if own:
            self.kept.write_text(own)
        with install.no_starts():
            assert self.policy.read_text() == install.NO_STARTS
        assert [path.read_text() for path in tmp_path.iterdir()] == ([own] if own else [])

    def test_also_where_the_installation_fails(self, tmp_path: Path) -> None:
        with pytest.raises(OSError, match="no space"), install.no_starts():
            raise OSError("no space")
        assert list(tmp_path.iterdir()) == []


def test_the_argument_specs_state_every_default_as_it_is() -> None:
    options = yaml.safe_load((ROLE / "meta/argument_specs.yml").read_text())["argument_specs"]["main"]["options"]
    assert set(options) == set(DEFAULTS)
    stated = {name: option["default"] for name, option in options.items() if "default" in option}
    assert stated == {name: DEFAULTS[name] for name in stated}
