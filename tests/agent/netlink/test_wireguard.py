"""WireGuard's answers by generic netlink, put together as the kernel's header lays them out."""

from __future__ import annotations

from ipaddress import ip_address
from struct import pack

from kptrace.agent.netlink.socket import attribute, nested
from kptrace.agent.netlink.wireguard import device, told
from kptrace.model.addresses import network
from kptrace.simulate.snapshot.network import Peer, Wireguard
from kptrace.simulate.snapshot.wg_show import read_wireguard

GENERIC = pack("=BBxx", 0, 1)
FIRST, SECOND, SECRET = bytes([1]) * 32, bytes([2]) * 32, bytes([7]) * 32
# WGDEVICE_A_*: IFINDEX 1, IFNAME 2, PRIVATE_KEY 3, PUBLIC_KEY 4, LISTEN_PORT 6, FWMARK 7, PEERS 8
HEAD = (
    attribute(1, pack("=I", 5)),
    attribute(2, b"wg0\0"),
    attribute(3, SECRET),
    attribute(4, bytes([3]) * 32),
    attribute(6, pack("=H", 51820)),
    attribute(7, pack("=I", 0x200000)),
)


def allowed(text: str, length: int) -> bytes:
    """WGALLOWEDIP_A_*: FAMILY 1, IPADDR 2, CIDR_MASK 3."""
    packed = ip_address(text).packed
    family = 2 if len(packed) == 4 else 10
    parts = (attribute(1, pack("=H", family)), attribute(2, packed), attribute(3, bytes([length])))
    return nested(0, *parts)


def peer(key: bytes, *ips: bytes, endpoint: bytes = b"") -> bytes:
    """WGPEER_A_*: PUBLIC_KEY 1, PRESHARED_KEY 2, ENDPOINT 4, ALLOWEDIPS 9."""
    parts = [attribute(1, key), attribute(2, SECRET)]
    parts += [attribute(4, endpoint)] if endpoint else []
    return nested(0, *parts, nested(9, *ips))


INET = pack("=H", 2) + pack("!H", 51820) + ip_address("172.30.0.12").packed + bytes(8)
INET6 = pack("=H", 10) + pack("!HI", 51821, 0) + ip_address("fd00::13").packed + pack("=I", 0)


def test_an_answer_in_parts() -> None:
    """The first peer's allowed IPs go on in the second message, which tells its key again."""
    parts = [
        GENERIC + b"".join(HEAD) + nested(8, peer(FIRST, allowed("10.244.2.0", 24), endpoint=INET)),
        GENERIC
        + HEAD[1]
        + nested(
            8,
            nested(0, attribute(1, FIRST), nested(9, allowed("fd00:2::", 64))),
            peer(SECOND, allowed("10.244.3.0", 24), endpoint=INET6),
        ),
    ]
    text = told("wg0", device(parts))
    assert read_wireguard(text) == {
        "wg0": Wireguard(
            port=51820,
            mark=0x200000,
            peers=(
                Peer(
                    key="AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=",
                    endpoint=("172.30.0.12", 51820),
                    allowed=(network("10.244.2.0/24"), network("fd00:2::/64")),
                ),
                Peer(
                    key="AgICAgICAgICAgICAgICAgICAgICAgICAgICAgICAgI=",
                    endpoint=("fd00::13", 51821),
                    allowed=(network("10.244.3.0/24"),),
                ),
            ),
        )
    }
    assert "BwcHBw" not in text, "no secret key"


def test_a_peer_that_is_nowhere_yet() -> None:
    text = told("wg0", device([GENERIC + b"".join(HEAD) + nested(8, peer(FIRST))]))
    assert read_wireguard(text)["wg0"].peers[0].endpoint is None


def test_hostile_bytes_end() -> None:
    whole = GENERIC + b"".join(HEAD) + nested(8, peer(FIRST, allowed("10.0.0.0", 8), endpoint=INET))
    for cut in range(4, len(whole)):
        told("wg0", device([whole[:cut]]))
    told("wg0", device([GENERIC + nested(8, peer(b"short", nested(0, attribute(2, b"abc"))))]))
