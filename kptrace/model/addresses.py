"""Addresses and networks from text, parsed once each."""

from __future__ import annotations

from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


@lru_cache(maxsize=65536)
def address(text: str) -> Address:
    """Parse an address. Raises ValueError."""
    return ip_address(text)


def is_address(text: str) -> bool:
    """Whether the text is an IPv4 or IPv6 address."""
    try:
        address(text)
    except ValueError:
        return False
    return True


@lru_cache(maxsize=65536)
def network(text: str) -> Network:
    """Parse a network (``10.0.0.0/8``) or a bare address. Raises ValueError."""
    return ip_network(text, strict=False)
