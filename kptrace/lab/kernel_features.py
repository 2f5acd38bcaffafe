"""Why a lab could not be made: the kernel features that it needs, each tried on its own.

Nothing is tried while all goes well. After a failure every feature is tried in a namespace made
for it, because the kernel's own words (``Operation not supported``, ``No chain by that name``) do
not name what is missing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from kptrace.agent import netns as namespace
from kptrace.lab import host_commands, netlink
from kptrace.lab.address_plan import IPIP_OVERHEAD, OVERHEAD, VXLAN_PORT, Plan
from kptrace.lab.dataplane.calico import network as calico
from kptrace.lab.network_objects import AddLink, Peer
from kptrace.model import Value
from kptrace.model.errors import (
    KptraceError,
    ObservationError,
    PermissionDeniedError,
    UnsupportedError,
)

VXLAN_PORTS = {
    "vxlan": VXLAN_PORT,
    "cilium-vxlan": VXLAN_PORT,
    "calico-vxlan": calico.VXLAN_PORT,
}
NFTABLES_PROBE = """table ip try {
 map services { type ipv4_addr . inet_proto . inet_service : verdict; }
 chain nat {
  type nat hook prerouting priority dstnat
  meta l4proto tcp dnat ip to numgen random mod 1 map { 0 : 10.0.0.1 . 80 }
 }
}
"""

SET_KINDS = (
    "hash:ip",
    "hash:ip,port",
    "hash:ip,port,ip",
    "hash:ip,port,net",
    "bitmap:port range 0-65535",
)

# what, the kernel's option, table and a rule that needs it
MATCHES = (
    ("conntrack", "NF_CONNTRACK", "filter -m conntrack --ctstate NEW"),
    ("rule comments", "NETFILTER_XT_MATCH_COMMENT", "filter -m comment --comment x"),
    ("address types", "NETFILTER_XT_MATCH_ADDRTYPE", "filter -m addrtype --dst-type LOCAL"),
    ("packet marks", "NETFILTER_XT_MARK", "filter -m mark --mark 1 -j MARK --set-mark 2"),
    ("chance", "NETFILTER_XT_MATCH_STATISTIC", "nat -m statistic --mode random --probability 0.5"),
    ("affinity lists", "NETFILTER_XT_MATCH_RECENT", "nat -m recent --name x --rcheck"),
    ("REJECT", "IP_NF_TARGET_REJECT", "filter -j REJECT"),
    ("MASQUERADE", "NETFILTER_XT_TARGET_MASQUERADE", "nat -j MASQUERADE --random-fully"),
    ("DNAT", "NETFILTER_XT_NAT", "nat -p tcp -j DNAT --to-destination 10.0.0.1:80"),
)

FELIX_MATCHES = (
    ("reverse path", "IP_NF_MATCH_RPFILTER", "raw -m rpfilter --invert -j DROP"),
    ("port lists", "NETFILTER_XT_MATCH_MULTIPORT", "filter -p udp -m multiport --dports 1"),
)


class Feature(Value):
    """A feature of the kernel, and what shows that it works: a link, or a command with its input.

    option: the kernel's configuration that brings it
    """

    what: str
    option: str
    link: AddLink | None = None
    argv: tuple[str, ...] = ()
    stdin: str = ""


def features(plan: Plan) -> tuple[Feature, ...]:
    """In the order in which ``up`` meets them."""
    needed = [
        Feature(
            what="veth devices",
            option="CONFIG_VETH",
            link=AddLink(name="try0", kind="veth", peer=Peer(name="try1")),
        ),
        Feature(what="bridges", option="CONFIG_BRIDGE", link=AddLink(name="try2", kind="bridge")),
    ]
    if port := VXLAN_PORTS.get(plan.network):
        vxlan = AddLink(name="try3", kind="vxlan", vni=1, port=port, lower="lo")
        needed.append(Feature(what="VXLAN", option="CONFIG_VXLAN", link=vxlan))
    if OVERHEAD.get(plan.network) == IPIP_OVERHEAD:
        ipip = AddLink(name="try4", kind="ipip", local="127.0.0.1")
        needed.append(Feature(what="IP in IP", option="CONFIG_NET_IPIP (ipip)", link=ipip))
    if plan.proxy == "ipvs":
        needed += _ipvs(plan)
    if plan.calico:
        needed += [_match(plan, *match) for match in FELIX_MATCHES]
    needed += [_match(plan, *match) for match in MATCHES]
    if plan.proxy == "nftables":
        needed.append(
            Feature(
                what="nftables maps and NAT",
                option="CONFIG_NF_TABLES_INET, CONFIG_NFT_NAT, CONFIG_NFT_NUMGEN",
                argv=("nft", "-f", "-"),
                stdin=NFTABLES_PROBE,
            )
        )
    return tuple(needed)


def _ipvs(plan: Plan) -> tuple[Feature, ...]:
    service = ("ipvsadm", "-A", "-t", "192.0.2.1:80", "-s", plan.scheduler)
    sets = "".join(f"create try{n} {kind}\n" for n, kind in enumerate(SET_KINDS))
    return (
        Feature(
            what="dummy devices",
            option="CONFIG_DUMMY",
            link=AddLink(name="try5", kind="dummy"),
        ),
        Feature(
            what=f"IPVS with the scheduler {plan.scheduler}",
            option=f"CONFIG_IP_VS, CONFIG_IP_VS_{plan.scheduler.upper()}"
            f" (ip_vs, ip_vs_{plan.scheduler})",
            argv=service,
        ),
        Feature(
            what="ipsets",
            option="CONFIG_IP_SET_HASH_*, CONFIG_IP_SET_BITMAP_PORT",
            argv=("ipset", "restore"),
            stdin=sets,
        ),
    )


def _match(plan: Plan, what: str, option: str, table_and_rule: str) -> Feature:
    """A feature that a rule needs, in a chain of its own, so that no hook of the table matters."""
    table, _, rule = table_and_rule.partition(" ")
    text = f"*{table}\n:TRY - [0:0]\n-A TRY {rule}\nCOMMIT\n"
    program = host_commands.iptables(plan.proxy, 0, "restore")
    return Feature(
        what=what, option=f"CONFIG_{option}", argv=(program, "--noflush", "--wait"), stdin=text
    )


def explain(plan: Plan, failure: KptraceError | OSError) -> KptraceError:
    """The missing feature when there is one, else the failure itself, as one of ours."""
    if isinstance(failure, PermissionError):
        return PermissionDeniedError(
            f"a lab cannot be made here: {failure}", host_commands.PRIVILEGED
        )
    reason = failure if isinstance(failure, KptraceError) else ObservationError(str(failure))
    if isinstance(reason, UnsupportedError | PermissionDeniedError):
        return reason
    try:
        with scratch() as netns:
            missing = [feature for feature in features(plan) if not works(feature, netns)]
    except (KptraceError, OSError):
        return reason
    if not missing:
        return reason
    names = ", ".join(feature.what for feature in missing)
    options = ", ".join(feature.option for feature in missing)
    return UnsupportedError(f"this kernel lacks {names}", f"it needs {options} ({reason.message})")


def works(feature: Feature, netns: str) -> bool:
    try:
        if feature.link:
            netlink.make((feature.link,), netns)
        else:
            host_commands.run(feature.argv, feature.stdin, netns)
    except (ObservationError, OSError):
        return False
    return True


@contextmanager
def scratch() -> Iterator[str]:
    name = f"kpt-try-{os.getpid()}"
    namespace.create(name)
    try:
        yield name
    finally:
        namespace.delete(name)
