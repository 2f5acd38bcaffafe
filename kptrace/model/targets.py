"""What the user typed -> what was meant: ``svc/web:http`` -> Target, ``pod/client`` -> SourceRef.

    svc/NAME[.NAMESPACE][:PORT[/PROTOCOL]]   a Service; ``svc/`` may be left out
    NAME.NAMESPACE.svc[.DOMAIN][:PORT]       the same by its DNS name
    pod/NAME, pod/NAME.NAMESPACE, pod/NAMESPACE/NAME, each with [:PORT[/PROTOCOL]]
    ADDRESS, ADDRESS:PORT, [ADDRESS]:PORT    IPv4 or IPv6
    any other dotted name                    asked of DNS; a last dot makes any name one of these

A bare name of two labels is NAME.NAMESPACE: so does a pod's resolver read it first, because it puts
``svc.cluster.local`` behind it (ndots 5). A pod's name may hold dots itself (the static pods of a
node that is called by its full domain name), hence ``pod/NAMESPACE/NAME``; with exactly one dot
the second label is the namespace.

Nothing here looks whether the thing exists. What cannot be meant raises ``UsageError`` with what is
wrong, where, and the nearest text that would do.
"""

from __future__ import annotations

import ipaddress
import re

from kptrace.model import SourceSpec, Target
from kptrace.model.errors import UsageError
from kptrace.model.suggestions import nearest

SERVICE_WORDS = ("svc", "service", "services")
POD_WORDS = ("pod", "pods", "po")
NODE_WORDS = ("node", "nodes", "no")
PROTOCOLS = ("tcp", "udp")

LABEL = re.compile(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?")  # RFC 1123, at most 63 characters
DOTTED_NUMBERS = re.compile(r"[0-9.]+")
FORMS = "svc/web, svc/web:http, web.shop, pod/web-1:8080, 10.96.0.10:53/udp or [fd00::1]:80"


def parse_target(text: str, namespace: str) -> Target:
    """Parse a target as typed. Raises UsageError.

    namespace: used where the text names none
    """
    _check_label(namespace, "namespace", "-n")
    if "://" in text:
        bare = text.split("://", 1)[1].split("/", 1)[0]
        raise UsageError(f'"{text}" is a URL', f"give only the host and port: {bare or FORMS}")
    kind, slash, rest = text.partition("/")
    if slash and kind in SERVICE_WORDS:
        return _service(text, rest, namespace)
    if slash and kind in POD_WORDS:
        return _pod(text, rest, namespace)
    if slash and not _is_protocol(rest) and ":" not in kind:
        raise _unknown_kind(text, kind, rest)
    return _bare(text, namespace)


def parse_source(text: str, namespace: str) -> SourceSpec:
    """Parse the value of ``--from``. Raises UsageError."""
    _check_label(namespace, "namespace", "-n")
    kind, slash, rest = text.partition("/")
    if slash and kind in POD_WORDS:
        name, namespace = _pod_name(text, rest, namespace)
        return SourceSpec(kind="pod", text=text, name=name, namespace=namespace)
    if slash and kind in NODE_WORDS:
        _check_labels(rest, "node name", text)
        return SourceSpec(kind="node", text=text, name=rest)
    address = _address(text)
    if address is None:
        nearest = f", for example pod/{nearest_label(text)}" if not slash and text else ""
        raise UsageError(
            f'--from "{text}" names neither a pod, a node nor an address',
            f"write pod/NAME, node/NAME or an IP address{nearest}",
        )
    return SourceSpec(kind="outside", text=text, address=address)


# --- the forms --------------------------------------------------------------------------------


def _service(text: str, rest: str, namespace: str) -> Target:
    name, port, protocol = _split_port(text, rest)
    if "/" in name:
        bare, _, last = name.partition("/")
        asked = f"{text.removesuffix(rest)}{bare}:PORT/{last}" if _is_protocol(last) else FORMS
        raise UsageError(f'"{text}" holds a slash too many', f"write {asked}")
    labels = name.rstrip(".").split(".")
    if len(labels) > 2 and labels[2] != "svc":
        raise UsageError(
            f'"{name}" in "{text}" has too many dots for a Service',
            f"write svc/NAME or svc/NAME.NAMESPACE, for example svc/{labels[0]}.{labels[1]}",
        )
    _check_label(labels[0], "Service name", text)
    for label in labels[1:]:
        _check_label(label, "namespace", text)
    return Target(
        kind="service",
        text=text,
        name=labels[0],
        namespace=labels[1] if len(labels) > 1 else namespace,
        port=port,
        protocol=protocol,
    )


def _pod(text: str, rest: str, namespace: str) -> Target:
    place, port, protocol = _split_port(text, rest)
    name, namespace = _pod_name(text, place, namespace)
    return Target(
        kind="pod", text=text, name=name, namespace=namespace, port=port, protocol=protocol
    )


def _pod_name(text: str, rest: str, namespace: str) -> tuple[str, str]:
    if "/" in rest:
        namespace, _, name = rest.partition("/")
    elif rest.count(".") == 1:
        name, _, namespace = rest.partition(".")
    else:
        name = rest
    _check_labels(name, "pod name", text)
    _check_label(namespace, "namespace", text)
    return name, namespace


def _bare(text: str, namespace: str) -> Target:
    address = _address(text)
    if address is not None:  # ``fd00::1`` whole: its colons are no port's
        return Target(kind="address", text=text, name=address)
    if text.count(":") > 1 and not text.startswith("["):
        raise _no_address(text)
    name, port, protocol = _split_port(text, text)
    address = _address(name)
    if address is not None:
        _check_number(port, text)
        return Target(kind="address", text=text, name=address, port=port, protocol=protocol)
    if DOTTED_NUMBERS.fullmatch(name) or name.startswith("["):
        raise _no_address(text)
    labels = name.split(".")
    if (len(labels) <= 2 and labels[-1]) or labels[2:3] == ["svc"]:
        return _service(text, text, namespace)
    _check_labels(name.rstrip("."), "name", text)
    _check_number(port, text)
    return Target(kind="name", text=text, name=name, port=port, protocol=protocol)


# --- the parts --------------------------------------------------------------------------------


def _split_port(text: str, rest: str) -> tuple[str, str, str]:
    """Split ``name:port/protocol`` in its three parts; the last two may be empty."""
    head, slash, protocol = rest.rpartition("/")
    if not slash or ":" not in head:  # ``shop/web``: a namespace's slash, not a protocol's
        head, protocol = rest, ""
    elif not _is_protocol(protocol):
        raise UsageError(
            f'"{protocol}" in "{text}" is not a protocol that is traced', "use tcp or udp"
        )
    if head.startswith("[") and head.endswith("]"):
        return head, "", protocol.lower()
    name, colon, port = head.rpartition(":")
    if not colon:
        return head, "", protocol.lower()
    _check_port(port, text)
    return name, port, protocol.lower()


def _is_protocol(word: str) -> bool:
    return word.lower() in PROTOCOLS


def _address(text: str) -> str | None:
    """Return the address as the kernel prints it; None when it is none."""
    bare = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    if "%" in bare:
        return None
    try:
        address = ipaddress.ip_address(bare)
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address):
        return str(address.ipv4_mapped or address)
    return None if bare != text else str(address)


def _check_port(port: str, text: str) -> None:
    if port.isascii() and port.isdigit():
        if 1 <= int(port[:6]) <= 65535:
            return
        raise UsageError(f'port {port} in "{text}" is out of range', "ports go from 1 to 65535")
    if len(port) <= 63 and LABEL.fullmatch(port):
        return
    raise UsageError(
        f'"{port}" in "{text}" is neither a port number nor a port\'s name',
        f"write a number from 1 to 65535 or a name such as {nearest_label(port) or 'http'}",
    )


def _check_number(port: str, text: str) -> None:
    if port and not port.isdigit():
        raise UsageError(
            f'"{port}" in "{text}" is a port\'s name, and only Services and pods name their ports',
            "write the number, for example :80",
        )


def _check_labels(name: str, what: str, text: str) -> None:
    if len(name) > 253:
        raise UsageError(
            f'the {what} in "{text[:40]}..." is longer than 253 characters', "shorten it"
        )
    for label in name.split("."):
        _check_label(label, what, text)


def _check_label(label: str, what: str, text: str) -> None:
    if len(label) <= 63 and LABEL.fullmatch(label):
        return
    if not label:
        raise UsageError(f'the {what} in "{text}" is empty', f"write {FORMS}")
    if len(label) > 63:
        raise UsageError(f'the {what} "{label[:30]}..." is longer than 63 characters', "shorten it")
    nearest = nearest_label(label)
    raise UsageError(
        f'the {what} "{label}" in "{text}" holds what Kubernetes allows in no name',
        "names are made of a-z, 0-9 and -, and begin and end with a letter or digit"
        + (f": did you mean {nearest}?" if nearest else ""),
    )


def nearest_label(text: str) -> str:
    """Return the RFC 1123 label that looks most like ``text``; empty when nothing is left of it."""
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")[:63].rstrip("-")


def _no_address(text: str) -> UsageError:
    return UsageError(
        f'"{text}" is not an IP address',
        "write 10.96.0.10:53 or, for IPv6 with a port, [fd00::1]:80",
    )


def _unknown_kind(text: str, kind: str, rest: str) -> UsageError:
    known = (*SERVICE_WORDS, *POD_WORDS)
    near = nearest(kind.lower(), known)
    if near:
        return UsageError(f'"{kind}" in "{text}" is no kind', f"did you mean {near}/{rest}?")
    if kind in NODE_WORDS:
        return UsageError(
            f'"{text}": a node is traced to by its address', "write the address, as in 10.0.0.1:22"
        )
    return UsageError(
        f'"{text}": packets go to Services, pods and addresses, not to a {kind or "/"}',
        f"name the Service or pod behind it: {FORMS}",
    )
