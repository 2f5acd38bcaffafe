"""Whatever bytes a reader is given, it reads them or refuses in words of its own.

The examples are real dumps, cut, doubled and spoiled in one or more places; ``make fuzz-parsers``
looks for worse ones, guided by coverage.
"""

from __future__ import annotations

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from parsers.readers import READERS, check

pieces = st.one_of(
    st.binary(max_size=12),
    st.sampled_from(
        (b"{", b"}", b"[]", b'"', b"null", b"-1", b"1e999", b"\n", b"\0", b" ", b"\xff", b"0" * 400)
    ),
    st.sampled_from((b"-A X ", b"COMMIT\n", b"*nat\n", b"!", b"/", b"-", b":", b"@", b'{"elem":')),
)


@pytest.mark.parametrize("name", READERS)
@given(data=st.data())
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_spoiled_examples_are_read_or_refused(name: str, data: st.DataObject) -> None:
    text = data.draw(st.sampled_from(READERS[name].seeds))
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(text)))
        length = data.draw(st.sampled_from((0, 0, 1, 2, 10, 200, len(text))))
        text = text[:start] + data.draw(pieces) + text[start + length :]
    check(name, text)


@pytest.mark.parametrize("name", READERS)
@given(text=st.binary(max_size=300))
@settings(max_examples=40, deadline=None)
def test_any_bytes_at_all(name: str, text: bytes) -> None:
    check(name, text)


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("deep", [b"[" * 100_000, b'{"a":' * 50_000, b"(" * 100_000])
def test_depth_is_no_danger(name: str, deep: bytes) -> None:
    check(name, deep)


@pytest.mark.parametrize("name", READERS)
def test_examples_are_read(name: str) -> None:
    for seed in READERS[name].seeds:
        check(name, seed)
