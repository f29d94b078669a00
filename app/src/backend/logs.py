"""Log lines on stderr, as JSON objects or as plain text; stdout belongs to what a command answers."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Mapping
from typing import Final

import msgspec

from backend.errors import ConfigError

HTTP: Final = 15
"""The level of access log lines: below info, above debug."""

LEVELS: Final = {
    "error": logging.ERROR,
    "warn": logging.WARNING,
    "info": logging.INFO,
    "http": HTTP,
    "debug": logging.DEBUG,
}
FORMATS: Final = ("json", "simple")
_NAMES: Final = {number: name for name, number in LEVELS.items()} | {logging.CRITICAL: "error"}


def _fields(record: logging.LogRecord) -> dict[str, object]:
    fields = getattr(record, "fields", None)
    return dict(fields) if isinstance(fields, Mapping) else {}


def _timestamp(record: logging.LogRecord) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"


class JsonFormatter(logging.Formatter):
    """One JSON object per line: time, level, logger, message, the record's `fields`, and a traceback if any."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its newline."""
        line: dict[str, object] = {
            "time": _timestamp(record),
            "level": _NAMES.get(record.levelno, record.levelname.lower()),
            "logger": record.name,
            "message": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line).decode()


class SimpleFormatter(logging.Formatter):
    """`time LEVEL message key=value ...`; control characters are escaped, so that a record stays one line."""

    def format(self, record: logging.LogRecord) -> str:
        """The line, without its newline; a traceback follows on lines of its own."""
        level = _NAMES.get(record.levelno, record.levelname.lower())
        message = "".join(c if c.isprintable() else repr(c)[1:-1] for c in record.getMessage())
        extra = "".join(f" {key}={value}" for key, value in _fields(record).items())
        line = f"{_timestamp(record)} {level.upper():5} {message}{extra}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def configure(environ: Mapping[str, str]) -> None:
    """Set up the root logger from LOG_LEVEL and LOG_FORMAT; raises ConfigError on a value that is neither."""
    level, style = environ.get("LOG_LEVEL") or "info", environ.get("LOG_FORMAT") or "json"
    if level not in LEVELS:
        raise ConfigError(f'LOG_LEVEL is "{level}".', f"Set it to one of {', '.join(LEVELS)}.")
    if style not in FORMATS:
        raise ConfigError(f'LOG_FORMAT is "{style}".', f"Set it to one of {', '.join(FORMATS)}.")
    logging.addLevelName(HTTP, "HTTP")
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if style == "json" else SimpleFormatter())
    logging.basicConfig(level=LEVELS[level], handlers=[handler], force=True)
    # These tell every statement and every wake-up at debug, with values in it that no log should hold.
    for name in ("aiosqlite", "asyncio"):
        logging.getLogger(name).setLevel(max(logging.INFO, LEVELS[level]))
    # And these tell at info what this program tells itself, in its own words.
    for name in ("alembic.runtime.plugins", "uvicorn"):
        logging.getLogger(name).setLevel(max(logging.WARNING, LEVELS[level]))
