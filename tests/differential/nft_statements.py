"""Random statements in nft's words: verdicts, jumps, maps, NAT, marks, refusals."""

from __future__ import annotations

from differential.nft_matches import fields
from differential.nft_parts import KEYS, Spot, distinct, key, typed


def statement(spot: Spot, version: int, protocol: str) -> str:
    dice = spot.home.dice
    if spot.later and dice.chance(0.35):
        return _jumping(spot, version)
    if spot.side in ("dst", "src") and dice.chance(0.6):
        return _nat(spot, version, protocol)
    if dice.chance(0.35):
        return _marking(spot, version)
    if spot.side == "filter" and dice.chance(0.15):
        return _reject(spot, version, protocol)
    if dice.chance(0.08) and spot.side in ("filter", "edge"):
        return dice.one(_side_effects(spot, version))
    updated = _updating(spot, version)
    if updated and dice.chance(0.1):
        return updated
    return dice.one(("accept", "accept", "return", "drop", "", "continue"))


def _side_effects(spot: Spot, version: int) -> list[str]:
    words = ["notrack", 'log prefix "x"', "meta priority set 1:1", "counter"]
    if spot.hook in ("prerouting", "output"):
        words += ["ct zone set 1"]
    if version == 4:
        words += ["ip ttl set 40", "ip dscp set cs1"]
    # an IPv6 header that is changed before a socket takes the packet spoils its checksum
    elif spot.hook in ("forward", "output", "postrouting"):
        words += ["ip6 hoplimit set 40", "ip6 dscp set cs1"]
    return words


def _jumping(spot: Spot, version: int) -> str:
    dice, home = spot.home.dice, spot.home
    roll = dice.random.random()
    fitting = [
        (name, types)
        for name, (types, data) in home.maps.items()
        if data == "verdict" and f"ipv{10 - version}_addr" not in types
    ]
    if roll < 0.25 and fitting and spot.side == "filter":
        name, types = dice.random.choice(fitting)
        return f"{fields(dice, types, version)} vmap @{name}"
    ways = [f"{dice.one(('jump', 'goto'))} {one}" for one in spot.later]
    ways += ["accept", "return", "continue"]
    if roll < 0.4:
        mod = dice.number((2, 3))
        mode = dice.one(("random", "random", "inc"))
        pairs = ", ".join(
            f"{n} : {dice.one(ways)}" for n in range(mod) if n == 0 or dice.chance(0.9)
        )
        return f"numgen {mode} mod {mod} vmap {{ {pairs} }}"
    if roll < 0.55:
        types = typed(dice.random.choice(KEYS), version)
        keys = distinct([key(dice, types, False) for _ in range(3)])
        pairs = ", ".join(f"{one} : {dice.one(ways)}" for one in keys)
        return f"{fields(dice, types, version)} vmap {{ {pairs} }}"
    return f"{dice.one(('jump', 'jump', 'goto'))} {dice.one(spot.later)}"


def _nat(spot: Spot, version: int, protocol: str) -> str:
    dice, home = spot.home.dice, spot.home
    ported = protocol in ("tcp", "udp")
    guard = f"meta l4proto {protocol} " if ported else ""
    flags = dice.one(("", "", "", " random", " fully-random", " persistent"))
    low, high = dice.ports()
    span = dice.one((str(dice.port()), str(dice.port()), f"{low}-{high}" if low < high else "80"))
    if spot.side == "dst":
        ip = "ip6" if version == 6 else "ip"
        family = f" {ip}" if home.family == "inet" else ""
        roll = dice.random.random()
        if roll < 0.2:
            return f"{guard}redirect{f' to :{span}' if ported else ''}"
        if roll < 0.35:
            mod = dice.number((2, 3))
            pairs = ", ".join(f"{n} : {dice.backend(version)}" for n in range(mod))
            mode = dice.one(("random", "inc"))
            return f"dnat{family} to numgen {mode} mod {mod} map {{ {pairs} }}"
        if roll < 0.5 and ported:
            mod = dice.number((2, 3))
            pairs = ", ".join(f"{n} : {dice.backend(version)} . {dice.port()}" for n in range(mod))
            return (f"{guard}dnat {ip} addr . port to numgen random mod {mod} "
                    f"map {{ {pairs} }}")  # fmt: skip
        fitting = [
            (name, types, data)
            for name, (types, data) in home.maps.items()
            if data.startswith(f"ipv{version}_addr") and f"ipv{10 - version}_addr" not in types
        ]
        if roll < 0.7 and fitting:
            name, types, data = dice.random.choice(fitting)
            asked = fields(dice, types, version)
            if " . " in data:
                return f"{guard or 'meta l4proto tcp '}dnat {ip} addr . port to {asked} map @{name}"
            return f"dnat{family} to {asked} map @{name}"
        first, last = dice.span(version)
        address = dice.backend(version)
        if dice.chance(0.15) and first != last:
            address = f"{first}-{last}"
        if ported and dice.chance(0.1):
            return f"{guard}dnat to :{span}"
        if ported and dice.chance(0.6):
            bracketed = f"[{address}]" if version == 6 else address
            if "-" in address and version == 6:
                bracketed = f"[{first}]-[{last}]"
            return f"{guard}dnat{family} to {bracketed}:{span}{flags}"
        return f"dnat{family} to {address}{flags}"
    if spot.hook == "postrouting" and dice.chance(0.6):
        return f"{guard}masquerade{f' to :{span}' if ported and dice.chance(0.3) else ''}{flags}"
    family = f" {'ip6' if version == 6 else 'ip'}" if home.family == "inet" else ""
    source = dice.source(version)
    if ported and dice.chance(0.3):
        source = f"[{source}]:{span}" if version == 6 else f"{source}:{span}"
        return f"{guard}snat{family} to {source}{flags}"
    return f"snat{family} to {source}{flags}"


def _marking(spot: Spot, version: int) -> str:
    dice, home = spot.home.dice, spot.home
    value, mask = dice.mark(), dice.mask()
    fitting = [
        (name, types)
        for name, (types, data) in home.maps.items()
        if data == "mark" and f"ipv{10 - version}_addr" not in types
    ]
    if fitting and dice.chance(0.4):
        name, types = dice.random.choice(fitting)
        return f"meta mark set {fields(dice, types, version)} map @{name}"
    return dice.one(
        (
            f"meta mark set {value:#x}",
            f"meta mark set meta mark or {value:#x}",
            f"meta mark set meta mark and {mask:#x}",
            f"meta mark set meta mark & {mask:#x} | {value:#x}",
            f"meta mark set meta mark xor {value:#x}",
            "meta mark set ct mark",
            f"meta mark set ct mark and {mask:#x}",
            f"ct mark set {value:#x}",
            "ct mark set meta mark",
            f"ct mark set ct mark or {value:#x}",
            "ct mark set numgen random mod 2",
            "meta mark set numgen inc mod 2 offset 16",
            f"meta mark set numgen random mod 2 map {{ 0 : {value:#x}, 1 : {mask:#x} }}",
        )
    )


def _reject(spot: Spot, version: int, protocol: str) -> str:
    dice, family = spot.home.dice, spot.home.family
    words = ["reject"]
    if protocol == "tcp":
        words.append("meta l4proto tcp reject with tcp reset")
    four = ("net-unreachable", "host-unreachable", "prot-unreachable", "port-unreachable",
            "net-prohibited", "host-prohibited", "admin-prohibited")  # fmt: skip
    six = ("no-route", "admin-prohibited", "addr-unreachable", "port-unreachable", "policy-fail",
           "reject-route")  # fmt: skip
    both = ("no-route", "port-unreachable", "host-unreachable", "admin-prohibited")
    if family == "inet":
        words.append(f"reject with icmpx type {dice.one(both)}")
    elif family == "ip":
        words.append(f"reject with icmp type {dice.one(four)}")
    else:
        words.append(f"reject with icmpv6 type {dice.one(six)}")
    return dice.one(words)


def _updating(spot: Spot, version: int) -> str:
    dice = spot.home.dice
    fitting = [name for name, theirs in spot.home.growing if theirs == version]
    if not fitting:
        return ""
    ip = "ip6" if version == 6 else "ip"
    return f"{dice.one(('add', 'update'))} @{dice.one(fitting)} {{ {ip} saddr }}"
