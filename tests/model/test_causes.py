"""The ids of causes are the ids of the catalogue, and both are in kebab case."""

from __future__ import annotations

import re

from kptrace.diagnose.catalogue.causes import CAUSES
from kptrace.model import CauseId


def test_every_id_has_an_entry_in_the_catalogue_and_no_entry_lacks_an_id() -> None:
    assert {str(cause) for cause in CauseId} == set(CAUSES)


def test_ids_are_kebab_case_and_named_alike() -> None:
    for cause in CauseId:
        assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", cause)
        assert cause.name == cause.upper().replace("-", "_")
