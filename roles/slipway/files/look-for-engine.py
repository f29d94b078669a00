"""Prints as JSON which Python and machine a host has, and the key of the engine in the folder that is named.

By running it: an engine whose Python was upgraded under it has the right key and does not work.
"""

import json
import os
import subprocess
import sys

ASK = "import slipway.cli, sys; print(open(sys.prefix + '/engine-key').read(), end='')"


def key(engine: str) -> str:
    """Its key; empty where there is no engine that works."""
    try:
        return subprocess.run([f"{engine}/bin/python", "-c", ASK], capture_output=True, text=True, check=False).stdout
    except OSError:
        return ""


json.dump(
    {"python": f"{sys.version_info[0]}.{sys.version_info[1]}", "arch": os.uname().machine, "key": key(sys.argv[1])},
    sys.stdout,
)
