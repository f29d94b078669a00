from __future__ import annotations

import json
import logging
from collections.abc import Iterator

import pytest
from backend import logs
from backend.errors import ConfigError


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:], root.level = handlers, level


@pytest.mark.parametrize(
    ("level", "shown"),
    [
        ("error", ["error"]),
        ("warn", ["warn", "error"]),
        ("info", ["info", "warn", "error"]),
        ("http", ["http", "info", "warn", "error"]),
        ("debug", ["debug", "http", "info", "warn", "error"]),
    ],
)
def test_a_level_shows_itself_and_what_is_above(
    capsys: pytest.CaptureFixture[str], level: str, shown: list[str]
) -> None:
    logs.configure({"LOG_LEVEL": level})

    for name, number in sorted(logs.LEVELS.items(), key=lambda item: item[1]):
        logging.getLogger("test").log(number, name)

    out, err = capsys.readouterr()
    assert [json.loads(line)["level"] for line in err.splitlines()] == shown
    assert out == ""


def test_a_json_line_carries_fields_and_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure({})

    try:
        int("broken")
    except ValueError:
        logging.getLogger("test").exception("it failed", extra={"fields": {"request_id": "r1"}})

    line = json.loads(capsys.readouterr().err)
    assert (line["message"], line["request_id"]) == ("it failed", "r1")
    assert "ValueError: invalid literal" in line["traceback"]


def test_a_simple_record_stays_one_line_whatever_the_message_holds(capsys: pytest.CaptureFixture[str]) -> None:
    logs.configure({"LOG_FORMAT": "simple"})

    logging.getLogger("test").warning("first\nsecond \x1b[31m", extra={"fields": {"key": 1}})

    assert capsys.readouterr().err.endswith("Z WARN  first\\nsecond \\x1b[31m key=1\n")


@pytest.mark.parametrize("setting", [{"LOG_LEVEL": "loud"}, {"LOG_FORMAT": "xml"}])
def test_a_value_that_is_not_known_is_answered_with_those_that_are(setting: dict[str, str]) -> None:
    with pytest.raises(ConfigError, match="Set it to one of"):
        logs.configure(setting)
