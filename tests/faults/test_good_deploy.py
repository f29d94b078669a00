"""A release that is as it should be: nobody notices that it comes."""

from __future__ import annotations

import pytest

from tests.faults.environment import Environment

pytestmark = [pytest.mark.faults, pytest.mark.core]


def test_a_good_deploy_fails_no_request_and_loses_no_data(shop: Environment) -> None:
    with shop.load() as load:
        shop.deploy("1.1").ok()
    assert load.seen.failed == [], load.seen
