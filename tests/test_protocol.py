"""One JSON request in, one JSON answer out, and a sentence where they do not fit."""

from __future__ import annotations

import io
import json

import msgspec
import pytest
from ansible.errors import AnsibleActionFail

from plugins.engine import EngineAction
from slipway.errors import Exit, UnhealthyError, UsageError
from slipway.protocol import PROTOCOL, answer, decode_request, refusal


class Request(msgspec.Struct, forbid_unknown_fields=True):
    name: str
    secret: str = ""


def test_a_request_is_decoded() -> None:
    assert decode_request(b'{"protocol": 1, "name": "shop"}', Request) == Request("shop")


@pytest.mark.parametrize("data", [b"", b"{", b"\xff", b"name: shop"])
def test_what_is_not_json_is_refused(data: bytes) -> None:
    with pytest.raises(UsageError) as error:
        decode_request(data, Request)
    assert str(error.value) == "The request on stdin is not JSON. Send one JSON object."


@pytest.mark.parametrize("data", [b"[]", b"{}", b'{"name": "shop"}', b'{"protocol": 99}', b'{"protocol": "1"}', b"1"])
def test_another_protocol_is_refused_with_what_to_run(data: bytes) -> None:
    with pytest.raises(UsageError, match=f"this engine speaks {PROTOCOL}.*playbooks/provision.yml"):
        decode_request(data, Request)


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({}, "missing required field `name`"),
        ({"name": 5}, "`$.name`"),
        ({"name": "shop", "extra": "hidden-value"}, "unknown field `extra`"),
        ({"name": "shop", "secret": ["hidden-value"]}, "`$.secret`"),
    ],
)
def test_a_wrong_request_is_refused_by_its_path_and_no_value_is_told(body: dict[str, object], path: str) -> None:
    with pytest.raises(UsageError) as error:
        decode_request(json.dumps({"protocol": PROTOCOL, **body}).encode(), Request)
    assert path in str(error.value)
    assert "hidden-value" not in str(error.value)


def test_an_answer_is_one_line_of_json() -> None:
    out = io.StringIO()
    answer(out, changed=True, release="r1")
    assert out.getvalue() == '{"protocol":1,"ok":true,"changed":true,"release":"r1"}\n'


def test_a_refusal_carries_both_sentences_the_details_and_the_exit_code() -> None:
    out = io.StringIO()
    assert refusal(UnhealthyError("It is sick.", "Mend it.", details="last line"), out) == Exit.UNHEALTHY
    assert json.loads(out.getvalue()) == {
        "protocol": 1,
        "ok": False,
        "what": "It is sick.",
        "do_next": "Mend it.",
        "details": "last line",
        "exit": 2,
        "serves": None,
    }


def test_the_refusal_of_an_engine_that_does_not_tell_yet_what_serves_is_understood() -> None:
    told = {"protocol": PROTOCOL, "ok": False, "what": "It is sick.", "do_next": "Mend it.", "details": "", "exit": 2}
    with pytest.raises(AnsibleActionFail, match="It is sick") as failed:
        EngineAction._understood(object.__new__(EngineAction), "activate", told)
    assert failed.value.result["serves"] is None
