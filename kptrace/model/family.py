"""The address family: IPv4 or IPv6."""

from __future__ import annotations

from enum import StrEnum


class Family(StrEnum):
    """An address family. Its value is the name that iptables, nft and ``ip6tables`` files use."""

    IPV4 = "ip"
    IPV6 = "ip6"

    @classmethod
    def of(cls, address: str) -> Family:
        """The family of an address or network, by its text; it is not checked further."""
        return cls.IPV6 if ":" in address else cls.IPV4

    @classmethod
    def of_version(cls, version: int) -> Family:
        """The family of an IP version: 4 or 6."""
        return cls.IPV6 if version == 6 else cls.IPV4

    @property
    def version(self) -> int:
        """The IP version: 4 or 6."""
        return 6 if self is Family.IPV6 else 4

    @property
    def position(self) -> int:
        """The place of the family in a pair (IPv4, IPv6): 0 or 1."""
        return int(self is Family.IPV6)

    @property
    def address_bits(self) -> int:
        """The length of an address in bits: 32 or 128."""
        return 128 if self is Family.IPV6 else 32

    @property
    def socket_family(self) -> int:
        """AF_INET (2) or AF_INET6 (10), as Linux numbers them."""
        return 10 if self is Family.IPV6 else 2

    @property
    def everything(self) -> str:
        """The network of all addresses: ``0.0.0.0/0`` or ``::/0``."""
        return "::/0" if self is Family.IPV6 else "0.0.0.0/0"

    @property
    def icmp(self) -> str:
        """The name of the family's ICMP: ``icmp`` or ``icmpv6``."""
        return "icmpv6" if self is Family.IPV6 else "icmp"
