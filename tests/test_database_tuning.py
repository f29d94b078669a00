"""Settings for the memory that PostgreSQL has."""

from __future__ import annotations

import pytest

from slipway.database.tuning import LEAST, MIB, memory_of, settings_text, shared_memory_of, tune
from slipway.errors import UsageError

GIB = 1024 * MIB


def megabytes(setting: str) -> float:
    if setting.endswith("kB"):
        return int(setting[:-2]) / 1024
    assert setting.endswith("MB")
    return float(setting[:-2])


@pytest.mark.parametrize(
    ("said", "total", "before", "megabytes_"),
    [
        ("512m", 4 * GIB, 0, 512),
        ("2g", 4 * GIB, 0, 2048),
        ("2GB", 4 * GIB, 0, 2048),
        ("50%", 4 * GIB, 0, 2048),
        ("75%", 4 * GIB, 0, 3072),
        # A new kernel finds a little more or less.
        ("50%", 4 * GIB - 30 * MIB, 2048 * MIB, 2048),
        ("50%", 4 * GIB + 30 * MIB, 2048 * MIB, 2048),
        ("50%", 4 * GIB - 30 * MIB, 0, 2016),
        ("50%", 8 * GIB, 2048 * MIB, 4096),
        # What is said exactly is taken exactly.
        ("2050m", 4 * GIB, 2048 * MIB, 2050),
    ],
)
def test_memory_is_a_size_or_a_share(said: str, total: int, before: int, megabytes_: int) -> None:
    assert memory_of(said, total=total, before=before) == megabytes_ * MIB


@pytest.mark.parametrize(
    ("said", "sentence"),
    [
        ("much", "neither a size nor a share"),
        ("0%", "neither a size nor a share"),
        ("100%", "neither a size nor a share"),
        ("-1g", "neither a size nor a share"),
        ("64m", "PostgreSQL needs 128 MB"),
        ("2%", "PostgreSQL needs 128 MB"),
        ("8g", "the host has 4096 MB"),
    ],
)
def test_memory_that_would_not_do_is_refused(said: str, sentence: str) -> None:
    with pytest.raises(UsageError, match=sentence):
        memory_of(said, total=4 * GIB)


@pytest.mark.parametrize("connections", [20, 100, 500])
@pytest.mark.parametrize("cpus", [1, 2, 16])
@pytest.mark.parametrize("memory", [LEAST, 256 * MIB, GIB, 4 * GIB, 64 * GIB])
def test_what_is_set_fits_into_the_memory(memory: int, cpus: int, connections: int) -> None:
    found = tune(memory, cpus=cpus, connections=connections)
    total = memory / MIB
    assert megabytes(found["shared_buffers"]) == total // 4
    # Buffers, three workers of autovacuum, and a quarter of all connections that sort at a time.
    busy = megabytes(found["shared_buffers"]) + 3 * megabytes(found["autovacuum_work_mem"])
    assert busy + megabytes(found["work_mem"]) * connections / 4 <= total or found["work_mem"] == "1024kB"
    assert int(found["max_parallel_workers_per_gather"]) <= int(found["max_parallel_workers"])
    assert int(found["max_parallel_workers"]) <= int(found["max_worker_processes"])
    assert megabytes(found["min_wal_size"]) < megabytes(found["max_wal_size"])


def test_more_memory_never_means_less_of_anything() -> None:
    steps = [tune(memory * MIB, cpus=2, connections=100) for memory in (128, 256, 512, 1024, 4096, 65536)]
    for name in ("shared_buffers", "effective_cache_size", "work_mem", "maintenance_work_mem", "max_wal_size"):
        sizes = [megabytes(step[name]) for step in steps]
        assert sizes == sorted(sizes), name


@pytest.mark.parametrize(("memory", "shared"), [(128 * MIB, 64), (1 * GIB, 256), (16 * GIB, 4096)])
def test_parallel_queries_have_room_to_meet_in(memory: int, shared: int) -> None:
    assert shared_memory_of(memory) == shared * MIB


def test_a_setting_is_one_line_whatever_it_holds() -> None:
    text = settings_text({"b": "it's \\ fine", "a": "1"})
    assert text == "a = '1'\nb = 'it''s \\\\ fine'\n"
