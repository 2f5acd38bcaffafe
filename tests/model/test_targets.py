"""Text the user types, and what is meant by it; expected values are derived by hand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from kptrace.model import SourceSpec, Target
from kptrace.model.errors import UsageError
from kptrace.model.targets import parse_source, parse_target

SERVICES = {
    "svc/web": ("web", "here", "", ""),
    "service/web": ("web", "here", "", ""),
    "services/web": ("web", "here", "", ""),
    "web": ("web", "here", "", ""),
    "web:80": ("web", "here", "80", ""),
    "svc/web:http": ("web", "here", "http", ""),
    "svc/web:80": ("web", "here", "80", ""),
    "svc/web:80/udp": ("web", "here", "80", "udp"),
    "svc/web:80/UDP": ("web", "here", "80", "udp"),
    "web:80/udp": ("web", "here", "80", "udp"),
    "svc/web.shop": ("web", "shop", "", ""),
    "svc/web.shop:http": ("web", "shop", "http", ""),
    "svc/web.shop.svc.cluster.local": ("web", "shop", "", ""),
    "web.shop": ("web", "shop", "", ""),
    "web.shop:443": ("web", "shop", "443", ""),
    "web.shop.svc": ("web", "shop", "", ""),
    "web.shop.svc.cluster.local": ("web", "shop", "", ""),
    "web.shop.svc.cluster.local.": ("web", "shop", "", ""),
    "web.shop.svc.corp.example:443/tcp": ("web", "shop", "443", "tcp"),
    "a" * 63: ("a" * 63, "here", "", ""),
    "1password": ("1password", "here", "", ""),
    # as a pod's resolver reads it first: example.com.svc.cluster.local
    "example.com:443": ("example", "com", "443", ""),
}

PODS = {
    "pod/x": ("x", "here", "", ""),
    "po/x": ("x", "here", "", ""),
    "pods/x:8080": ("x", "here", "8080", ""),
    "pod/x:http": ("x", "here", "http", ""),
    "pod/x.shop:8080/udp": ("x", "shop", "8080", "udp"),
    "pod/shop/x": ("x", "shop", "", ""),
    "pod/shop/x:8080": ("x", "shop", "8080", ""),
    "pod/shop/udp": ("udp", "shop", "", ""),
    "pod/kube-system/etcd-a.b": ("etcd-a.b", "kube-system", "", ""),
    "pod/etcd-a.b.example": ("etcd-a.b.example", "here", "", ""),
}

ADDRESSES = {
    "10.96.0.10": ("10.96.0.10", "", ""),
    "10.96.0.10:53/udp": ("10.96.0.10", "53", "udp"),
    "10.96.0.10:53": ("10.96.0.10", "53", ""),
    "[fd00::1]:80": ("fd00::1", "80", ""),
    "[fd00::1]": ("fd00::1", "", ""),
    "fd00::1": ("fd00::1", "", ""),
    "FD00:0:0::1": ("fd00::1", "", ""),
    "fd00::1:80": ("fd00::1:80", "", ""),
    "::ffff:10.0.0.1": ("10.0.0.1", "", ""),
}

NAMES = {
    "example.com.": ("example.com.", "", ""),
    "www.example.com:443": ("www.example.com", "443", ""),
    "web-0.web.shop.svc.cluster.local:80": ("web-0.web.shop.svc.cluster.local", "80", ""),
    "localhost.": ("localhost.", "", ""),
}


@pytest.mark.parametrize("text", SERVICES)
def test_services(text: str) -> None:
    name, namespace, port, protocol = SERVICES[text]
    assert parse_target(text, "here") == Target(
        kind="service", text=text, name=name, namespace=namespace, port=port, protocol=protocol
    )


@pytest.mark.parametrize("text", PODS)
def test_pods(text: str) -> None:
    name, namespace, port, protocol = PODS[text]
    assert parse_target(text, "here") == Target(
        kind="pod", text=text, name=name, namespace=namespace, port=port, protocol=protocol
    )


@pytest.mark.parametrize("text", ADDRESSES)
def test_addresses(text: str) -> None:
    name, port, protocol = ADDRESSES[text]
    assert parse_target(text, "here") == Target(
        kind="address", text=text, name=name, port=port, protocol=protocol
    )


@pytest.mark.parametrize("text", NAMES)
def test_names(text: str) -> None:
    name, port, protocol = NAMES[text]
    assert parse_target(text, "here") == Target(
        kind="name", text=text, name=name, port=port, protocol=protocol
    )


WRONG = {
    "": "svc/web",
    "svc/": "svc/web",
    "svc/Web_Shop": "did you mean web-shop?",
    "svc/web.shop.x": "svc/web.shop",
    "svc/web:": "http",
    "svc/web:0": "1 to 65535",
    "svc/web:65536": "1 to 65535",
    "svc/web:99999999999999999999999": "1 to 65535",
    "svc/web:Http": "http",
    "svc/web:80/sctp": "tcp or udp",
    "10.96.0.10:80/sctp": "tcp or udp",
    "svc/../web": "write svc/web, svc/web:http",
    "svc/web/udp": "svc/web:PORT/udp",
    "web/udp": "web:PORT/udp",
    "serivce/web": "service/web",
    "SVC/web": "svc/web",
    "deploy/web": "pod/web-1:8080",
    "node/a": "10.0.0.1:22",
    "http://web.shop:80/path": "web.shop:80",
    "10.96.0.256": "10.96.0.10:53",
    "10.96.0.10:http": "number",
    "www.example.com:http": "number",
    "fe80::1%eth0": "[fd00::1]:80",
    "[fd00::1": "[fd00::1]:80",
    "[10.0.0.1]:80": "10.96.0.10:53",
    "a" * 64: "shorten",
    "a..b": "svc/web",
    "web shop": "web-shop",
    "\x1b[31mweb": "31mweb",
    ".".join(["a" * 60] * 5): "shorten",
}


@pytest.mark.parametrize("text", WRONG)
def test_what_cannot_be_meant_names_what_would_do(text: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_target(text, "here")
    assert WRONG[text] in caught.value.hint
    assert caught.value.message
    assert caught.value.exit_code == 2


def test_the_namespace_is_checked_too() -> None:
    with pytest.raises(UsageError, match="namespace"):
        parse_target("web", "Shop")


SOURCES = {
    "pod/client": SourceSpec(kind="pod", text="pod/client", name="client", namespace="here"),
    "pod/client.shop": SourceSpec(
        kind="pod", text="pod/client.shop", name="client", namespace="shop"
    ),
    "po/shop/client": SourceSpec(
        kind="pod", text="po/shop/client", name="client", namespace="shop"
    ),
    "node/a.example.com": SourceSpec(kind="node", text="node/a.example.com", name="a.example.com"),
    "192.0.2.7": SourceSpec(kind="outside", text="192.0.2.7", address="192.0.2.7"),
    "FD00::7": SourceSpec(kind="outside", text="FD00::7", address="fd00::7"),
    "[fd00::7]": SourceSpec(kind="outside", text="[fd00::7]", address="fd00::7"),
}


@pytest.mark.parametrize("text", SOURCES)
def test_sources(text: str) -> None:
    assert parse_source(text, "here") == SOURCES[text]


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("client", "pod/client"),
        ("", "pod/NAME"),
        ("svc/web", "pod/NAME"),
        ("10.0.0.1:80", "node/NAME"),
        ("pod/", "svc/web"),
        ("pod/A", "did you mean a?"),
        ("node/_", "a-z"),
    ],
)
def test_sources_that_cannot_be(text: str, hint: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_source(text, "here")
    assert hint in caught.value.hint


@given(st.text(max_size=80) | st.from_regex(r"[a-z0-9.:/\[\]-]{0,40}", fullmatch=True))
def test_any_text_is_a_target_or_a_usage_error(text: str) -> None:
    for parse in (parse_target, parse_source):
        try:
            meant = parse(text, "here").text
        except UsageError:
            continue
        assert meant == text
