"""The contract: decoded strictly, with defaults that an operator may rely on."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from slipway.contract import decode_services


def test_a_contract_with_everything_is_decoded(services: dict[str, Any]) -> None:
    api = decode_services(services)["api"]
    assert api.uid_gid == (1001, 1001)
    assert api.host_port == 4100
    assert api.health is not None
    assert (api.health.status, api.health.passes) == (200, 2)
    assert api.resources.memory == "512m"


def test_what_is_not_said_is_the_safe_choice() -> None:
    service = decode_services({"api": {"image": "r/api", "tag": "1", "user": "1:1"}})["api"]
    assert service.read_only
    assert service.cap_add == []
    assert service.host_port is None


def test_a_service_publishes_the_port_it_listens_on_unless_told_otherwise(services: dict[str, Any]) -> None:
    del services["api"]["publish"]
    assert decode_services(services)["api"].host_port == 4000


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"imagee": "x"}, "unknown field `imagee` - at `app_services.api`"),
        ({"user": 1001}, "Expected `str`, got `int` - at `app_services.api.user`"),
        ({"port": "4000"}, "Expected `int | null`, got `str` - at `app_services.api.port`"),
        ({"health": {"path": "/", "attempts": 3}}, "unknown field `attempts` - at `app_services.api.health`"),
        ({"health": {}}, "missing required field `path` - at `app_services.api.health`"),
        ({"migrate": {"up": "migrate up"}}, "Expected `array`, got `str` - at `app_services.api.migrate.up`"),
        ({"config_files": [{"path": "/c"}]}, "required field `content` - at `app_services.api.config_files[0]`"),
    ],
)
def test_a_wrong_key_is_named_with_its_whole_path(
    change: dict[str, Any], sentence: str, services: dict[str, Any]
) -> None:
    services["api"].update(change)
    with pytest.raises(msgspec.ValidationError) as error:
        decode_services(services)
    assert sentence in str(error.value)


def test_a_missing_key_is_named_with_its_service() -> None:
    with pytest.raises(msgspec.ValidationError, match=r"missing required field `user` - at `app_services\.web`"):
        decode_services({"web": {"image": "r/web"}})


@pytest.mark.parametrize("data", [[], "api", None, 5])
def test_services_that_are_no_mapping_are_refused(data: object) -> None:
    with pytest.raises(msgspec.ValidationError, match="Expected `object`"):
        decode_services(data)


def test_a_user_that_is_no_pair_of_numbers_is_a_value_error(services: dict[str, Any]) -> None:
    services["api"]["user"] = "shop"
    with pytest.raises(ValueError, match="invalid literal"):
        _ = decode_services(services)["api"].uid_gid
