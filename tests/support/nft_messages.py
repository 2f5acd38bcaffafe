"""Messages of nf_tables, put together by hand as the kernel sends them."""

from __future__ import annotations

from kptrace.agent.netlink.socket import attribute, be32, nested, netfilter, text


def expression(name: str, *attributes: bytes) -> bytes:
    return nested(1, text(1, name), nested(2, *attributes))


def compare(value: bytes, op: int = 0) -> bytes:
    return expression("cmp", be32(1, 1), be32(2, op), nested(3, attribute(1, value)))


def load(offset: int, size: int) -> bytes:
    return expression("payload", be32(1, 1), be32(2, 1), be32(3, offset), be32(4, size))


def rule(*expressions: bytes, number: int = 5) -> bytes:
    handle = attribute(3, number.to_bytes(8, "big"))
    parts = (text(1, "nat"), text(2, "KUBE-SERVICES"), handle, nested(4, *expressions))
    return netfilter(2, *parts)
