"""Each committed schema is its model's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import kptrace.render.schema
from kptrace.model import Value
from kptrace.render.schema import SCHEMAS, schema_text

FOLDER = Path(kptrace.render.schema.__file__).parent


@pytest.mark.parametrize(("name", "kind"), SCHEMAS.items())
def test_the_committed_schema_is_the_models(
    name: str, kind: type[Value], golden: Callable[[Path, str], None]
) -> None:
    golden(FOLDER / name, schema_text(kind))


def test_no_other_is_committed() -> None:
    assert {path.name for path in FOLDER.glob("*.schema.json")} == set(SCHEMAS)
