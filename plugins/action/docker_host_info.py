"""Runs the module of the same name, which is the first that a host is asked."""

from __future__ import annotations

import sys
from pathlib import Path

# The kit's own package lies beside its plugins; the controller need not have it installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from plugins.look import LookAction


class ActionModule(LookAction):
    """Looks at a host."""
