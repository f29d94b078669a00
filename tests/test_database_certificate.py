"""Whether a certificate does, tried with ones that openssl makes."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest

from slipway.database.certificate import DAYS, RENEW, complaint

DAY = 86400.0


def openssl(*arguments: str | Path) -> None:
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What images/postgres/make-certificate makes, by the openssl of this machine."""
    folder = tmp_path_factory.mktemp("made")
    script = (Path(__file__).parents[1] / "images/postgres/make-certificate").read_text()
    here = script.replace("/tls", f"{folder}/tls").replace("/authority", f"{folder}/authority")
    for name in ("tls", "authority"):
        (folder / name).mkdir()
    names = ["IP:10.20.0.21", "DNS:db1"]
    subprocess.run(
        ["bash", "-s", "--", "shop", str(DAYS), *names], input=here, text=True, check=True, capture_output=True
    )
    return folder


def asked(made: Path, *names: str, authority: Path | None = None, in_days: float = 0) -> str:
    files = (made / "tls/server.crt", made / "tls/server.key", authority or made / "authority/ca.crt")
    return complaint(*files, names, now=time.time() + in_days * DAY)


@pytest.mark.parametrize("names", [("10.20.0.21",), ("db1",), ("10.20.0.21", "db1")])
def test_one_that_verifies_for_all_its_names_does(made: Path, names: tuple[str, ...]) -> None:
    assert asked(made, *names) == ""


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("10.20.0.22", "IP address mismatch, certificate is not valid for '10.20.0.22'"),
        ("db2", "Hostname mismatch, certificate is not valid for 'db2'"),
    ],
)
def test_one_without_a_name_has_to_be_made_anew(made: Path, name: str, said: str) -> None:
    assert asked(made, "10.20.0.21", name) == said


def test_it_is_renewed_before_it_ends(made: Path) -> None:
    assert asked(made, "db1", in_days=DAYS - RENEW / DAY - 1) == ""
    assert asked(made, "db1", in_days=DAYS - 10.4) == "it ends in 10 days"


def test_one_of_another_authority_does_not(made: Path, tmp_path: Path) -> None:
    other = tmp_path / "ca.crt"
    openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-noenc", "-subj", "/CN=x",
            "-keyout", tmp_path / "ca.key", "-out", other)  # fmt: skip
    assert "certificate" in asked(made, "db1", authority=other)


def test_without_its_files_there_is_none(tmp_path: Path) -> None:
    assert complaint(tmp_path / "a", tmp_path / "b", tmp_path / "c", ["db1"]) == "there is none"


def test_one_with_another_key_cannot_be_used(made: Path, tmp_path: Path) -> None:
    key = tmp_path / "other.key"
    openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", key)
    assert complaint(made / "tls/server.crt", key, made / "authority/ca.crt", ["db1"]).startswith("it cannot be used")


def test_nobody_but_root_reads_the_keys(made: Path) -> None:
    for key in ("tls/server.key", "authority/ca.key"):
        assert (made / key).stat().st_mode & 0o077 == 0
