"""Random targets in iptables' words, each with what it needs of the rule that it stands in."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from differential.words import Dice


class Where:
    """A chain while its rules are made. sets: ipset name -> its type."""

    def __init__(
        self,
        table: str,
        hooks: tuple[str, ...],
        family: int,
        base: bool,
        sets: Mapping[str, str],
    ) -> None:
        self.table, self.hooks, self.family, self.base = table, hooks, family, base
        self.sets = sets

    def only(self, *hooks: str) -> bool:
        return set(self.hooks) <= set(hooks)


def target_of(dice: Dice, where: Where, targets: Sequence[str], protocol: str) -> tuple[str, str]:
    """What it needs of the rule, and its words."""
    if targets and dice.chance(0.5):
        return "", f"-{dice.one(('j', 'j', 'j', 'g'))} {dice.one(targets)}"
    if where.table == "nat" and dice.chance(0.6):
        return _nat(dice, where, protocol)
    if where.table in ("filter", "security") and dice.chance(0.15) and where.table == "filter":
        return _reject(dice, where)
    if where.table == "raw" and dice.chance(0.3):
        return "", dice.one(("-j CT --notrack", "-j NOTRACK", "-j CT --zone 1"))
    # an IPv6 header that is changed before a socket takes the packet spoils its checksum
    written = where.family == 4 or where.only("FORWARD", "OUTPUT", "POSTROUTING")
    if where.table == "mangle" and written and dice.chance(0.12):
        name = "TTL --ttl" if where.family == 4 else "HL --hl"
        return "", f"-j {name}-{dice.one(('set 63', 'set 63', 'set 2', 'set 64', 'dec 1'))}"
    if where.table == "mangle" and written and dice.chance(0.12):
        return "", f"-j {dice.one(('DSCP --set-dscp 0x08', 'TOS --set-tos 0x10/0x3f'))}"
    if where.table != "nat" and dice.chance(0.4):
        return "", _marking(dice)
    return "", dice.one(
        ("-j ACCEPT", "-j ACCEPT", "-j RETURN", "-j DROP" if where.table != "nat" else "", "", "",
         "-j LOG --log-prefix \"x \"", "-j NFLOG --nflog-group 5", _marking(dice))
    )  # fmt: skip


def _marking(dice: Dice) -> str:
    value, mask = dice.mark(), dice.mask()
    return "-j " + dice.one(
        (
            f"MARK --set-mark {value:#x}",
            f"MARK --set-xmark {value:#x}/{mask:#x}",
            f"MARK --or-mark {value:#x}",
            f"MARK --and-mark {mask:#x}",
            f"MARK --xor-mark {value:#x}",
            f"CONNMARK --set-mark {value:#x}",
            f"CONNMARK --set-xmark {value:#x}/{mask:#x}",
            f"CONNMARK --save-mark --nfmask {mask:#x} --ctmask {dice.mask():#x}",
            f"CONNMARK --restore-mark --nfmask {mask:#x} --ctmask {dice.mask():#x}",
            "CONNMARK --restore-mark",
            "CONNMARK --save-mark",
        )
    )


def _reject(dice: Dice, where: Where) -> tuple[str, str]:
    if dice.chance(0.3):
        return "needs tcp", "-j REJECT --reject-with tcp-reset"
    kinds = (
        ("icmp-port-unreachable", "icmp-net-unreachable", "icmp-host-unreachable",
         "icmp-proto-unreachable", "icmp-net-prohibited", "icmp-host-prohibited",
         "icmp-admin-prohibited")
        if where.family == 4
        else ("icmp6-no-route", "icmp6-adm-prohibited", "icmp6-addr-unreachable",
              "icmp6-port-unreachable", "icmp6-policy-fail", "icmp6-reject-route")
    )  # fmt: skip
    return "", f"-j REJECT --reject-with {dice.one(kinds)}"


def _nat(dice: Dice, where: Where, protocol: str) -> tuple[str, str]:
    ported = protocol in ("tcp", "udp")
    random = dice.one(("", "", "", " --random", " --random-fully", " --persistent"))
    if where.only("PREROUTING", "OUTPUT"):
        if dice.chance(0.3):
            span = f" --to-ports {_to_ports(dice)}" if ported else ""
            return "", f"-j REDIRECT{span}{random if random == ' --random' else ''}"
        random = random.replace("-fully", "")
        return "", f"-j DNAT --to-destination {_to(dice, where, ported, dice.backend)}{random}"
    if where.only("POSTROUTING") and dice.chance(0.5):
        span = f" --to-ports {_to_ports(dice)}" if ported and dice.chance(0.5) else ""
        return "", f"-j MASQUERADE{span}{random if 'persistent' not in random else ''}"
    return "", f"-j SNAT --to-source {_to(dice, where, ported, dice.source)}{random}"


def _to_ports(dice: Dice) -> str:
    low, high = dice.ports()
    return dice.one((str(dice.port()), str(dice.port()), f"{low}-{high}"))


def _to(dice: Dice, where: Where, ported: bool, draw: Callable[[int], str]) -> str:
    address = draw(where.family)
    if draw == dice.backend and dice.chance(0.15):
        low, high = dice.span(where.family)
        address = f"{low}-{high}" if low != high else low
    if not ported or dice.chance(0.4):
        return address
    if dice.chance(0.1):
        return f":{_to_ports(dice)}"
    bracketed = f"[{address}]" if where.family == 6 else address
    return f"{bracketed}:{_to_ports(dice)}"
