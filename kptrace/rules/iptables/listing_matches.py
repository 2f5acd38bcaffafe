"""The texts that iptables -L prints behind its columns -> the options that iptables-save prints.

Sources: the ``_print`` functions of iptables' extensions, beside their ``_save`` functions.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from kptrace.rules.iptables.options import PORT_NAMES

Text = Callable[[re.Match[str]], str]


_MAX_LENGTH = 10_000  # characters; iptables prints no longer line


def extra_args(extra: str, target: str) -> tuple[list[str], list[str]]:
    """(options of the matches, options of the target) for the text of a rule.

    A text that is not understood becomes the option of a match that nobody knows.
    """
    args: list[str] = []
    pattern, form = _TARGETS.get(target, _NO_OPTIONS)
    text = extra.strip()
    while len(text) <= _MAX_LENGTH:
        own = pattern.fullmatch(text)
        if own:
            option = form(own).strip()
            return args, [option] if option else []
        match, option = _next_match(text)
        if match is None:
            break
        args.append(option)
        text = text[match.end() :].strip()
    rest = pattern.search(text)
    ends = rest is not None and rest.end() == len(text) and rest.start() > 0
    unknown = text[: rest.start()].strip() if rest and ends else text
    args.append(f"-m listed --text {_quoted(unknown)}")
    return args, [form(rest).strip()] if rest and ends and form(rest) else []


def _next_match(text: str) -> tuple[re.Match[str] | None, str]:
    for pattern, form in _MATCHES:
        match = pattern.match(text)
        if match and match.end():
            return match, form(match)
    return None, ""


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _no(negation: str | None) -> str:
    return "! " if negation and negation.strip() == "!" else ""


# --- matches --------------------------------------------------------------------------------------


def _comment(match: re.Match[str]) -> str:
    return f"-m comment --comment {_quoted(match[1])}"


_PORT_OPTIONS = {"spt": "--sport", "spts": "--sport", "dpt": "--dport", "dpts": "--dport"}


def _ports(match: re.Match[str]) -> str:
    args = [f"-m {match[1]}"]
    for name, negation, value in re.findall(r"(spts?|dpts?):(!?)(\S+)", match[2]):
        edges = (str(PORT_NAMES.get(edge, edge)) for edge in value.split(":"))
        args.append(f"{_no(negation)}{_PORT_OPTIONS[name]} {':'.join(edges)}")
    if flags := re.search(r"flags:(!?)0x([0-9A-Fa-f]+)/0x([0-9A-Fa-f]+)", match[2]):
        mask, value = (_tcp_flags(int(flags[group], 16)) for group in (2, 3))
        args.append(f"{_no(flags[1])}--tcp-flags {mask} {value}")
    elif flags := re.search(r"flags:(!?)([A-Z,]+)/([A-Z,]+)", match[2]):
        args.append(f"{_no(flags[1])}--tcp-flags {flags[2]} {flags[3]}")
    return " ".join(args)


_TCP_FLAGS = ("FIN", "SYN", "RST", "PSH", "ACK", "URG")


def _tcp_flags(bits: int) -> str:
    names = [name for place, name in enumerate(_TCP_FLAGS) if bits & 1 << place]
    return ",".join(names) or "NONE"


def _addrtype(match: re.Match[str]) -> str:
    args = ["-m addrtype"]
    for side, negation, kinds in re.findall(r"(src|dst)-type (!?)\s*(\S+)", match[1]):
        args.append(f"{_no(negation)}--{side}-type {kinds}")
    args += [f"--limit-iface-{way}" for way in re.findall(r"limit-(in|out)", match[1])]
    return " ".join(args)


_RECENT = {"SET": "--set", "CHECK": "--rcheck", "UPDATE": "--update", "REMOVE": "--remove"}


def _recent(match: re.Match[str]) -> str:
    args = [f"-m recent {_no(match[1])}{_RECENT[match[2]]}"]
    for name, group in (("--seconds", 3), ("--hitcount", 5)):
        if match[group]:
            args.append(f"{name} {match[group]}")
        if name == "--seconds" and match[4]:
            args.append("--reap")
    args += ["--rttl"] if match[6] else []
    args.append(f"--name {match[7]}")
    args += [f"--mask {match[9]}"] if match[9] else []
    return " ".join([*args, "--rdest" if match[8] == "dest" else "--rsource"])


def _nth(match: re.Match[str]) -> str:
    packet = f" --packet {match[3]}" if match[3] else ""
    return f"-m statistic --mode nth {_no(match[1])}--every {match[2]}{packet}"


def _limit(match: re.Match[str]) -> str:
    burst = "" if match[2] == "5" else f" --limit-burst {match[2]}"
    return f"-m limit --limit {match[1]}{burst}"


def _hashlimit(match: re.Match[str]) -> str:
    kind = "--hashlimit-upto" if match[1] == "up to" else "--hashlimit-above"
    mode = f" --hashlimit-mode {match[4].replace('-', ',')}" if match[4] else ""
    return f"-m hashlimit {kind} {match[2]} --hashlimit-burst {match[3]}{mode}"


def _icmp(match: re.Match[str]) -> str:
    name, option = ("icmp6", "--icmpv6-type") if match[1] else ("icmp", "--icmp-type")
    kind = "any" if match[3] == "255" else match[3]
    return f"-m {name} {_no(match[2])}{option} {kind}{'/' + match[4] if match[4] else ''}"


def _negatable_option(module: str, option: str) -> Text:
    """``[! ]NAME VALUE`` where group 1 is the negation and group 2 the value."""
    return lambda match: f"-m {module} {_no(match[1])}{option} {match[2]}"


def _ttl(match: re.Match[str]) -> str:
    name = "ttl" if match[1] == "TTL" else "hl"
    sign = {"==": "eq", "!=": "eq", "<": "lt", ">": "gt"}[match[2]]
    return f"-m {name} {'! ' if match[2] == '!=' else ''}--{name}-{sign} {match[3]}"


_RANGES = {"source": "--src-range", "destination": "--dst-range"}
_FORMS: tuple[tuple[str, Text], ...] = (
    (r"/\* (.*?) \*/", _comment),
    (r"(tcp|udplite|udp|sctp|dccp)((?: +(?:spts?|dpts?):!?\S+| +flags:!?\S+)*)(?= |$)", _ports),
    (r"(ipv6-)?icmp(?:v6)? ?type (!?)(\d+)(?: code (\d+))?", _icmp),
    (r"(! )?ctstate (\S+)", _negatable_option("conntrack", "--ctstate")),
    (r"(! )?ctstatus (\S+)", _negatable_option("conntrack", "--ctstatus")),
    (r"(! )?ctproto (\S+)", _negatable_option("conntrack", "--ctproto")),
    (r"(! )?ctdir (\S+)", _negatable_option("conntrack", "--ctdir")),
    (
        r"(! )?(ct(?:orig|repl)(?:src|dst)(?:port)?) (\S+)",
        lambda match: f"-m conntrack {_no(match[1])}--{match[2]} {match[3]}",
    ),
    (r"(! )?state (\S+)", _negatable_option("state", "--state")),
    (r"mark match +(! ?)?(0x\S+)", _negatable_option("mark", "--mark")),
    (r"connmark match +(! ?)?(0x\S+)", _negatable_option("connmark", "--mark")),
    (r"ADDRTYPE match((?: (?:src|dst)-type !?\s*\S+| limit-(?:in|out))+)", _addrtype),
    (
        r"statistic mode random (! )?probability (\S+)",
        lambda match: f"-m statistic --mode random {_no(match[1])}--probability {match[2]}",
    ),
    (r"statistic mode nth (! )?every (\d+)(?: packet (\d+))?", _nth),
    (
        r"(! )?recent: (SET|CHECK|UPDATE|REMOVE)(?: seconds: (\d+))?( reap)?(?: hit_count: (\d+))?"
        r"( TTL-Match)? name: (\S+) side: (source|dest)(?: mask: (\S+))?",
        _recent,
    ),
    (
        r"(! )?match-set (\S+) (\S+)",
        lambda match: f"-m set {_no(match[1])}--match-set {match[2]} {match[3]}",
    ),
    (
        r"multiport (sports|dports|ports) +(! ?)?(\S+)",
        lambda match: f"-m multiport {_no(match[2])}--{match[1]} {match[3]}",
    ),
    (r"limit: avg (\S+) burst (\d+)", _limit),
    (r"limit: (up to|above) (\S+) burst (\d+)(?: mode (\S+))?", _hashlimit),
    (
        r"PHYSDEV match((?: +(?:! )?--physdev-[a-z-]+(?: +(?![!-])\S+)?)+)",
        lambda match: f"-m physdev {' '.join(match[1].split())}",
    ),
    (
        r"(source|destination) IP range (! ?)?(\S+)",
        lambda match: f"-m iprange {_no(match[2])}{_RANGES[match[1]]} {match[3]}",
    ),
    (r"MAC ?(! ?)?([0-9A-Fa-f:]{17})", _negatable_option("mac", "--mac-source")),
    (r"length (! ?)?(\d\S*)", _negatable_option("length", "--length")),
    (r"(TTL|HL) match (?:TTL|HL) (==|!=|<|>) (\d+)", _ttl),
    (
        r"PKTTYPE (!?=) (\S+)",
        lambda match: f"-m pkttype {'! ' if match[1] == '!=' else ''}--pkt-type {match[2]}",
    ),
    (r"(! )?owner UID match (\S+)", _negatable_option("owner", "--uid-owner")),
    (r"(! )?owner GID match (\S+)", _negatable_option("owner", "--gid-owner")),
    (
        r"rpfilter((?: (?:loose|validmark|accept-local|invert))*)",
        lambda match: " ".join(["-m rpfilter", *(f"--{word}" for word in match[1].split())]),
    ),
    (
        r"socket((?: --(?:transparent|nowildcard|restore-skmark))*)",
        lambda match: f"-m socket{match[1]}",
    ),
    (r"(! )?cgroup (\d+)", _negatable_option("cgroup", "--cgroup")),
    (r"nfacct-name +(\S+)", lambda match: f"-m nfacct --nfacct-name {match[1]}"),
    (r"DSCP match (!)?(0x\S+)", _negatable_option("dscp", "--dscp")),
)
_MATCHES = tuple((re.compile(pattern), form) for pattern, form in _FORMS)

# --- targets --------------------------------------------------------------------------------------

_RANDOM = r"((?: ?(?:random-fully|random|persistent))*)"


def _random(text: str) -> str:
    return "".join(f" --{word}" for word in text.split())


def _mark(match: re.Match[str]) -> str:
    kind, _, text = match[1].partition(" ")
    value = int(text.split("/")[0], 16)
    whole = 0xFFFFFFFF
    forms = {
        "set": f"{value:#x}/{whole:#x}",
        "xset": text,
        "or": f"{value:#x}/{value:#x}",
        "and": f"0x0/{~value & whole:#x}",
        "xor": f"{value:#x}/0x0",
    }
    return f"--set-xmark {forms[kind]}"


def _connmark(match: re.Match[str]) -> str:
    if match[2] is None:
        return _mark(match)
    mask = match[3] or "0xffffffff"
    return f"--{match[2]}-mark --nfmask {mask} --ctmask {mask}"


def _log(match: re.Match[str]) -> str:
    args = [f"--log-prefix {_quoted(match[3])}"] if match[3] else []
    level = _LOG_LEVELS.get(match[2], match[2])
    args += [f"--log-level {level}"] if level != "4" else []
    flags = int(match[1] or 0)
    args += [name for bit, name in _LOG_FLAGS if flags & bit]
    return " ".join(args)


_LOG_LEVELS = {
    name: str(number)
    for number, name in enumerate(
        ("emerg", "alert", "crit", "err", "warn", "notice", "info", "debug")
    )
} | {"warning": "4", "error": "3"}
_LOG_FLAGS = (
    (1, "--log-tcp-sequence"),
    (2, "--log-tcp-options"),
    (4, "--log-ip-options"),
    (8, "--log-uid"),
    (32, "--log-macdecode"),
)


def _nflog(match: re.Match[str]) -> str:
    options = re.findall(r'nflog-(prefix|group|size|range|threshold) +("(?:[^"]*)"|\S+)', match[0])
    return " ".join(f"--nflog-{name} {value}" for name, value in options)


def _ct(match: re.Match[str]) -> str:
    names = match[1].split()
    args = ["--notrack"] if "notrack" in names or "NOTRACK" in names else []
    for name in ("helper", "zone", "ctevents", "expevents", "timeout"):
        if name in names[:-1]:
            args.append(f"--{name} {names[names.index(name) + 1]}")
    return " ".join(args)


def _fixed(option: str) -> Text:
    return lambda match: f"{option} {match[1]}"


_TARGET_FORMS: dict[str, tuple[str, Text]] = {
    "DNAT": (rf"to:(\S+){_RANDOM}", lambda m: f"--to-destination {m[1]}{_random(m[2])}"),
    "SNAT": (rf"to:(\S+){_RANDOM}", lambda m: f"--to-source {m[1]}{_random(m[2])}"),
    "MASQUERADE": (
        rf"(?:masq ports: (\S+))?{_RANDOM}",
        lambda m: (f"--to-ports {m[1]}" if m[1] else "") + _random(m[2]),
    ),
    "REDIRECT": (
        rf"(?:redir ports (\S+))?{_RANDOM}",
        lambda m: (f"--to-ports {m[1]}" if m[1] else "") + _random(m[2]),
    ),
    "REJECT": (r"reject-with (\S+)", _fixed("--reject-with")),
    "MARK": (r"MARK ((?:set|xset|or|and|xor) 0x\S+)", _mark),
    "CONNMARK": (
        r"CONNMARK (?:((?:set|xset|or|and|xor) 0x\S+)|(save|restore)(?: mask (0x\S+))?)",
        _connmark,
    ),
    "LOG": (r'LOG (?:flags (\d+) )?level (\S+)(?: prefix [`"](.*)["\'])?', _log),
    "NFLOG": (r'(?: *nflog-\w+ +(?:"[^"]*"|\S+))+', _nflog),
    "TCPMSS": (
        r"TCPMSS (clamp to PMTU|set (\d+))",
        lambda m: f"--set-mss {m[2]}" if m[2] else "--clamp-mss-to-pmtu",
    ),
    "CT": (r"(?:CT )?((?:NOTRACK|notrack|helper|zone|ctevents|expevents|timeout)(?: .*)?)", _ct),
    "TPROXY": (
        r"TPROXY redirect (\S+):(\d+) mark (\S+)",
        lambda m: f"--on-port {m[2]} --on-ip {m[1]} --tproxy-mark {m[3]}",
    ),
    "TOS": (r"TOS set (\S+)", _fixed("--set-tos")),
    "DSCP": (r"DSCP set (\S+)", _fixed("--set-dscp")),
    "TTL": (r"TTL set to (\d+)", _fixed("--ttl-set")),
    "HL": (r"HL set to (\d+)", _fixed("--hl-set")),
    "NFQUEUE": (
        r"NFQUEUE (?:num (\d+)|balance (\d+:\d+))( bypass)?( cpu-fanout)?",
        lambda m: (
            (f"--queue-num {m[1]}" if m[1] else f"--queue-balance {m[2]}")
            + (" --queue-bypass" if m[3] else "")
            + (" --queue-cpu-fanout" if m[4] else "")
        ),
    ),
    "CHECKSUM": (r"CHECKSUM fill", lambda m: "--checksum-fill"),
    "SET": (
        r"(add|del)-set (\S+) (\S+)(?: timeout (\d+))?",
        lambda m: f"--{m[1]}-set {m[2]} {m[3]}" + (f" --timeout {m[4]}" if m[4] else ""),
    ),
}
_TARGETS: dict[str, tuple[re.Pattern[str], Text]] = {
    name: (re.compile(pattern), form) for name, (pattern, form) in _TARGET_FORMS.items()
}
_NO_OPTIONS: tuple[re.Pattern[str], Text] = (re.compile(""), lambda match: "")
