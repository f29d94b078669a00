"""`slipway contract check`, as somebody who writes a contract sees it."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from slipway.cli import main
from slipway.errors import Exit

GOOD = """\
app_services:
  api:
    image: registry.example/shop/api
    tag: "1.4.2"
    user: "1001:1001"
    port: 8000
    health: {path: /health}
"""
TEMPLATED = """\
app_services:
  api:
    image: "{{ shop_registry }}/shop/api"
    tag: "{{ shop_tag }}"
    user: "{{ shop_user }}"
    port: "{{ shop_port | int }}"
    publish: 4000
    replicas: "{{ shop_replicas | int }}"
    route: "{{ shop_route }}"
    required_env: [TOKEN]
    secret_env:
      TOKEN: !vault |
        $ANSIBLE_VAULT;1.1;AES256
    health: {path: "{{ shop_health }}"}
    config_files:
      - {path: /app/shop.json, format: json, content: "{{ shop_settings }}", gid: "{{ shop_gid | int }}"}
    config_schema:
      - {path: /app/shop.json, schema: "{{ lookup('ansible.builtin.file', 'shop.json') | from_json }}"}
      - {path: /app/shop.json, schema: {type: object}}
    volumes:
      data: {path: /data, uid: "{{ shop_uid | int }}", gid: 1001}
  web:
    image: registry.example/shop/web
    tag: "1"
    user: "1:1"
    port: "{{ web_port | int }}"
    env: {API: "http://{{ shop_host }}"}
"""


def check(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str], *options: str) -> tuple[int, list[str]]:
    file = tmp_path / "app.yml"
    file.write_text(text)
    code = main(["contract", "check", *options, str(file)])
    said = capsys.readouterr()
    return code, (said.out + said.err).replace(f"{file}: ", "").splitlines()


def test_a_good_contract_is_said_to_be_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(GOOD, tmp_path, capsys) == (Exit.OK, ["nothing is wrong with api."])


def test_it_may_be_json_and_the_services_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    services = yaml.safe_load(GOOD)["app_services"]
    assert check(json.dumps(services), tmp_path, capsys) == (Exit.OK, ["nothing is wrong with api."])


def test_all_problems_of_all_services_are_told_at_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    services: dict[str, Any] = yaml.safe_load(GOOD)["app_services"]
    services["api"].update(tag=1.4, prot=8000, health={})
    services["web"] = {"image": "r/web", "tag": "1", "user": "root", "port": 70000, "secret_env": {"TOKEN": "short"}}
    code, said = check(yaml.safe_dump(services), tmp_path, capsys)
    assert code == Exit.ERROR
    assert [line.partition(". ")[0] for line in said] == [
        "The contract in app_services is wrong: Object contains unknown field `prot`, did you mean `port`? - at "
        "`app_services.api`",
        "The contract in app_services is wrong: Expected `str`, got `float` - at `app_services.api.tag`",
        "The contract in app_services is wrong: Object missing required field `path` - at `app_services.api.health`",
        "app_services.web names the port 70000, which is none",
        'app_services.web.user is not of the form "uid:gid"',
        "The secret TOKEN of web is shorter than 32 characters",
        "6 problems.",
    ]
    assert "short" not in " ".join(said).replace("shorter", "")


def test_what_is_a_template_is_taken_for_right_and_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(TEMPLATED, tmp_path, capsys) == (
        Exit.OK,
        [
            "14 values are templates, which Ansible fills in, and were taken for right.",
            "nothing is wrong with api, web.",
        ],
    )
    unknown = json.loads("\n".join(check(TEMPLATED, tmp_path, capsys, "--json")[1]))["unknown"]
    for path in ("api.image", "api.port", "api.route", "api.secret_env.TOKEN", "api.volumes.data.uid", "web.env.API"):
        assert f"app_services.{path}" in unknown


def test_a_mistake_beside_templates_is_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = TEMPLATED.replace("[TOKEN]", "[TOKEN, SHOP_ROOT]").replace("{{ web_port | int }}", "{{ shop_port | int }}")
    text = text.replace("    publish: 4000\n", "")
    code, said = check(text, tmp_path, capsys)
    assert code == Exit.ERROR
    assert said[0].startswith("Services api and web both publish port ")
    assert said[1] == "The service api needs SHOP_ROOT in its environment. Set it in app_services.api.env."


def test_a_warning_is_no_problem(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = GOOD.replace('"1001:1001"', '"0:0"\n    allow_root: true')
    code, said = check(text, tmp_path, capsys)
    assert (code, len(said)) == (Exit.OK, 2)
    assert said[0].startswith("warning: api runs as root in its container")


def test_programs_get_json(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    code, said = check(GOOD.replace("8000", "70000"), tmp_path, capsys, "--json")
    found = json.loads("\n".join(said))
    assert (code, found["services"], len(found["problems"])) == (Exit.ERROR, ["api"], 1)


def test_the_contract_that_the_page_writes_in_ten_minutes_is_a_good_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (Path(__file__).parents[1] / "docs/contract.md").read_text()
    steps = re.findall(r"^```yaml\n(.*?)^```$", page.partition("## 1.")[2], re.MULTILINE | re.DOTALL)
    contract = "".join(step for step in steps if "app_secrets" not in step)
    assert contract.count("\n") > 20
    code, said = check(contract, tmp_path, capsys)
    assert (code, said[-1]) == (Exit.OK, "nothing is wrong with api.")


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("a: [", "is not YAML in line 1"),
        ("backend_image: registry.example/shop/backend", "has no app_services, and holds more than services."),
        ('app_services: "{{ backend_services }}"', "is a template, so what it says is not known here."),
    ],
)
def test_a_file_that_has_no_contract_to_look_at_is_a_wrong_call(
    text: str, sentence: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code, said = check(text, tmp_path, capsys)
    assert code == Exit.USAGE
    assert sentence in said[0]


@pytest.mark.parametrize("text", ["", "5", "[]", "app_services: {}"])
def test_a_file_without_services_has_a_problem(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(text, tmp_path, capsys)[0] == Exit.ERROR


def test_a_file_that_is_not_there_is_a_wrong_call(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["contract", "check", str(tmp_path / "none.yml")]) == Exit.USAGE
    assert "cannot be read" in capsys.readouterr().err
