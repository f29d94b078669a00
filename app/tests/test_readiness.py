from __future__ import annotations

import pytest
from backend.readiness import Schema, schema_problem


@pytest.mark.parametrize(
    ("schema", "problem"),
    [
        (Schema(None), "the schema is empty and this release needs revision 0002"),
        (Schema("0001", "0001"), "the schema is at revision 0001 and this release needs 0002"),
        (Schema("0002", "0001"), None),
        (Schema("0003", "0001"), None),
        (Schema("0003", "0002"), None),
        (Schema("0003", "0003"), "the schema is at revision 0003, too new for this release of 0002"),
        (Schema("0003", None), "the schema is at revision 0003, too new for this release of 0002"),
    ],
)
def test_a_release_of_0002_can_run_on_its_own_schema_and_on_newer_ones_that_say_so(
    schema: Schema, problem: str | None
) -> None:
    assert schema_problem(schema, "0002") == problem
