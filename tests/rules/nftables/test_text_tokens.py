"""The tokens of nft's text."""

from __future__ import annotations

import pytest

from kptrace.rules.nftables.text_tokens import END, TextSyntaxError, Tokens


def token_texts(text: str) -> list[str]:
    tokens = Tokens(text)
    read = []
    while not tokens.at_end:
        read.append(tokens.next().text)
    return read


def test_words_strings_and_marks() -> None:
    assert token_texts('iifname "a b" tcp dport { 80, 90 } accept') == [
        *("iifname", "a b", "tcp", "dport", "{", "80", ",", "90", "}", "accept")
    ]
    assert token_texts("goto service-X-a/b/tcp/p80; drop\n") == [
        *("goto", "service-X-a/b/tcp/p80", END, "drop", END)
    ]
    assert token_texts("[fd00::1]:80 10.0.0.0/8 != >= @s") == [
        "[fd00::1]:80",
        "10.0.0.0/8",
        "!=",
        ">=",
        "@s",
    ]


def test_comments_give_handles() -> None:
    tokens = Tokens("accept # handle 7\ndrop # nothing\n")
    assert tokens.handle_of(1) == 7
    assert tokens.handle_of(2) is None
    assert token_texts("accept # handle 7\n") == ["accept", END]


def test_lines_are_counted() -> None:
    tokens = Tokens("a\n\nb")
    tokens.next()
    tokens.skip_lines()
    assert tokens.token.line == 3


def test_what_is_expected() -> None:
    tokens = Tokens("set 5 x")
    assert not tokens.accept("get")
    tokens.expect("set")
    assert tokens.number() == 5
    with pytest.raises(TextSyntaxError, match="'x' is no number"):
        tokens.number()
    with pytest.raises(TextSyntaxError, match="cut off"):
        tokens.next()


def test_the_rest_of_a_line() -> None:
    tokens = Tokens("a { b\n} c }\n")
    assert tokens.text_until_line_end() == "a { b\n} c"
    assert tokens.word == "}"
    with pytest.raises(TextSyntaxError):
        Tokens('"open')
