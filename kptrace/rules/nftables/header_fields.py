"""The fields of headers, and the names of meta and conntrack keys, as nft has them.

Sources: proto.c, meta.c and ct.c of nft.
"""

from __future__ import annotations

from typing import NamedTuple

LINK, NETWORK, TRANSPORT = 0, 1, 2
BASES = {LINK: "ll", NETWORK: "nh", TRANSPORT: "th"}


class Field(NamedTuple):
    """A field of a header; ``offset`` and ``length`` in bits, ``kind``: its data type."""

    header: str
    name: str
    offset: int
    length: int
    kind: str


def _fields(header: str, text: str) -> tuple[Field, ...]:
    """Parse lines of the form ``name offset length [type]``."""
    fields = []
    for line in text.strip().split("\n"):
        name, offset, length, *kind = line.split()
        fields.append(Field(header, name, int(offset), int(length), kind[0] if kind else "integer"))
    return tuple(fields)


_PORTS = "sport 0 16 inet_service\ndport 16 16 inet_service\n"
HEADERS: dict[str, tuple[Field, ...]] = {
    name: _fields(name, text)
    for name, text in {
        "ether": "daddr 0 48 ether_addr\nsaddr 48 48 ether_addr\ntype 96 16 ether_type",
        "vlan": "pcp 0 3\ndei 3 1\nid 4 12\ntype 16 16 ether_type",
        "arp": "htype 0 16\nptype 16 16 ether_type\nhlen 32 8\nplen 40 8\noperation 48 16 arp_op",
        "ip": "version 0 4\nhdrlength 4 4\ndscp 8 6 dscp\necn 14 2 ecn\nlength 16 16\nid 32 16\n"
        "frag-off 48 16\nttl 64 8\nprotocol 72 8 inet_proto\nchecksum 80 16\n"
        "saddr 96 32 ipv4_addr\ndaddr 128 32 ipv4_addr",
        "ip6": "version 0 4\ndscp 4 6 dscp\necn 10 2 ecn\nflowlabel 12 20\nlength 32 16\n"
        "nexthdr 48 8 inet_proto\nhoplimit 56 8\nsaddr 64 128 ipv6_addr\ndaddr 192 128 ipv6_addr",
        "tcp": _PORTS + "sequence 32 32\nackseq 64 32\ndoff 96 4\nreserved 100 4\n"
        "flags 104 8 tcp_flag\nwindow 112 16\nchecksum 128 16\nurgptr 144 16",
        "udp": _PORTS + "length 32 16\nchecksum 48 16",
        "udplite": _PORTS + "csumcov 32 16\nchecksum 48 16",
        "sctp": _PORTS + "vtag 32 32\nchecksum 64 32",
        "dccp": _PORTS,
        "th": _PORTS,
        "icmp": "type 0 8 icmp_type\ncode 8 8 icmp_code\nchecksum 16 16\nid 32 16\n"
        "sequence 48 16\ngateway 32 32\nmtu 48 16",
        "icmpv6": "type 0 8 icmpv6_type\ncode 8 8 icmpv6_code\nchecksum 16 16\nid 32 16\n"
        "sequence 48 16\nmtu 32 32",
        "esp": "spi 0 32\nsequence 32 32",
        "ah": "nexthdr 0 8 inet_proto\nhdrlength 8 8\nreserved 16 16\nspi 32 32\nsequence 64 32",
        "comp": "nexthdr 0 8 inet_proto\nflags 8 8\ncpi 16 16",
    }.items()
}

# what a protocol's number says about the next header
L4 = {
    1: "icmp",
    6: "tcp",
    17: "udp",
    33: "dccp",
    50: "esp",
    51: "ah",
    58: "icmpv6",
    108: "comp",
    132: "sctp",
    136: "udplite",
}
L3_BY_ETHERTYPE = {0x800: "ip", 0x86DD: "ip6", 0x806: "arp", 0x8100: "vlan"}
L3_BY_FAMILY = {2: "ip", 10: "ip6"}


def find(header: str, offset: int, length: int) -> Field | None:
    """The field with this offset and length, in bits."""
    for field in HEADERS.get(header, ()):
        if (field.offset, field.length) == (offset, length):
            return field
    return None


def starting(header: str, offset: int) -> Field | None:
    """The first field that begins at this offset, in bits."""
    return next((field for field in HEADERS.get(header, ()) if field.offset == offset), None)


META: dict[int, tuple[str, str]] = {
    0: ("length", "host"),
    1: ("protocol", "ether_type"),
    2: ("priority", "classid"),
    3: ("mark", "mark"),
    4: ("iif", "iface_index"),
    5: ("oif", "iface_index"),
    6: ("iifname", "ifname"),
    7: ("oifname", "ifname"),
    8: ("iiftype", "iface_type"),
    9: ("oiftype", "iface_type"),
    10: ("skuid", "uid"),
    11: ("skgid", "gid"),
    12: ("nftrace", "host"),
    13: ("rtclassid", "realm"),
    14: ("secmark", "host"),
    15: ("nfproto", "nf_proto"),
    16: ("l4proto", "inet_proto"),
    17: ("ibrname", "ifname"),
    18: ("obrname", "ifname"),
    19: ("pkttype", "pkt_type"),
    20: ("cpu", "host"),
    21: ("iifgroup", "devgroup"),
    22: ("oifgroup", "devgroup"),
    23: ("cgroup", "host"),
    24: ("random", "integer"),
    25: ("ipsec", "boolean"),
    26: ("iifkind", "ifname"),
    27: ("oifkind", "ifname"),
    28: ("ibrpvid", "host"),
    29: ("ibrvproto", "ether_type"),
    30: ("time", "time_date"),
    31: ("day", "time_day"),
    32: ("hour", "time_hour"),
    33: ("sdif", "iface_index"),
    34: ("sdifname", "ifname"),
}
CT: dict[int, tuple[str, str]] = {
    0: ("state", "ct_state"),
    1: ("direction", "ct_dir"),
    2: ("status", "ct_status"),
    3: ("mark", "mark"),
    4: ("secmark", "host"),
    5: ("expiration", "time"),
    6: ("helper", "string"),
    7: ("l3proto", "nf_proto"),
    8: ("saddr", "ipv4_addr"),
    9: ("daddr", "ipv4_addr"),
    10: ("protocol", "inet_proto"),
    11: ("proto-src", "inet_service"),
    12: ("proto-dst", "inet_service"),
    13: ("label", "ct_label"),
    14: ("packets", "host"),
    15: ("bytes", "host"),
    16: ("avgpkt", "host"),
    17: ("zone", "host"),
    18: ("event", "ct_event"),
    19: ("ip saddr", "ipv4_addr"),
    20: ("ip daddr", "ipv4_addr"),
    21: ("ip6 saddr", "ipv6_addr"),
    22: ("ip6 daddr", "ipv6_addr"),
    23: ("id", "integer"),
}
