"""Users of a public name, one after the other, each with a connection of their own.

    python visitors.py ADDRESS NAME PATH --times 12
    python visitors.py ADDRESS NAME PATH --until FILE

Asks ADDRESS for https://NAME/PATH so many times, or until FILE exists, and prints as JSON how many were answered and
what the others got. Whether the certificate is good is for the tests of the tier to say.
"""

from __future__ import annotations

import argparse
import http.client
import itertools
import json
import ssl
import sys
import time
from pathlib import Path

PAUSE = 0.05
"""Seconds between two users."""
PATIENCE = 10.0
"""Seconds after which one gives up."""


class Connection(http.client.HTTPSConnection):
    """Goes to an address, and names a host there that no resolver knows."""

    def __init__(self, address: str, name: str) -> None:
        self._trusting = ssl.create_default_context()
        self._trusting.check_hostname = False
        self._trusting.verify_mode = ssl.CERT_NONE
        super().__init__(address, timeout=PATIENCE, context=self._trusting)
        self._name = name

    def connect(self) -> None:
        http.client.HTTPConnection.connect(self)
        self.sock = self._trusting.wrap_socket(self.sock, server_hostname=self._name)


def visit(address: str, name: str, path: str) -> str:
    """What is wrong with the answer; an empty string when nothing is."""
    connection = Connection(address, name)
    try:
        connection.request("GET", path, headers={"Host": name})
        answer = connection.getresponse()
        answer.read()
    except (OSError, http.client.HTTPException) as error:
        return repr(error)
    finally:
        connection.close()
    return f"{answer.status}" if answer.status >= http.client.INTERNAL_SERVER_ERROR else ""


def main() -> None:
    """Send users and tell what became of them."""
    parser = argparse.ArgumentParser()
    parser.add_argument("address")
    parser.add_argument("name")
    parser.add_argument("path")
    parser.add_argument("--times", type=int)
    parser.add_argument("--until", type=Path)
    told = parser.parse_args()
    answers = []
    for number in itertools.count():
        if number == told.times or (told.until and told.until.exists()):
            break
        answers.append(visit(told.address, told.name, told.path))
        time.sleep(PAUSE)
    failed = [answer for answer in answers if answer]
    json.dump({"answered": len(answers) - len(failed), "failed": failed}, sys.stdout)


if __name__ == "__main__":
    main()
