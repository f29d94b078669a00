"""An environment over all of its hosts, for playbooks/status.yml and history.yml; see plugins/views.py."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

# The kit's own package lies beside its plugins; the controller need not have it installed.
sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from plugins import views
from plugins.filter.slipway import on_plain_data


def slipway_status_view(hosts: Sequence[str], reports: Sequence[views.Report], **more: Any) -> dict[str, Any]:
    """Lay out what `slipway_status` answered for each of these hosts; see plugins.views.status_view."""
    return views.status_view(reports=dict(zip(hosts, reports, strict=True)), **more)


def slipway_history_view(hosts: Sequence[str], reports: Sequence[views.Report], **more: Any) -> dict[str, Any]:
    """Lay out what `slipway_history` answered for each of these hosts; see plugins.views.history_view."""
    return views.history_view(reports=dict(zip(hosts, reports, strict=True)), **more)


class FilterModule:
    """Makes the filters known to Ansible."""

    def filters(self) -> dict[str, Any]:
        """Names the filters of this file."""
        filters = (slipway_history_view, slipway_status_view)
        return {function.__name__: on_plain_data(function) for function in filters}
