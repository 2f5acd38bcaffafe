"""What a lab holds, as values (the JSON form) and as text of at most 80 columns."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from kptrace.kube.objects.cluster_state import read_folder
from kptrace.lab import workloads
from kptrace.lab.faults import inject
from kptrace.lab.state import Lab
from kptrace.model import API_VERSION, Service, Value

SPECS = {spec.key: spec for spec in workloads.SERVICES}


class NodeStatus(Value):
    name: str
    addresses: tuple[str, ...]
    podCIDRs: tuple[str, ...]
    netns: str


class ServiceStatus(Value):
    namespace: str
    name: str
    what: str
    addresses: tuple[str, ...]
    ports: tuple[str, ...]
    pods: tuple[str, ...]


class PodStatus(Value):
    namespace: str
    name: str
    node: str
    addresses: tuple[str, ...]
    netns: str


class FaultStatus(Value):
    name: str
    words: str
    node: str
    object: str


class LabStatus(Value):
    """What ``kptrace lab status -o json`` prints."""

    name: str
    proxy: str
    network: str
    api: str
    servers: bool
    nodes: tuple[NodeStatus, ...]
    services: tuple[ServiceStatus, ...]
    pods: tuple[PodStatus, ...]
    faults: tuple[FaultStatus, ...]
    api_version: str = API_VERSION
    kind: str = "LabStatus"


def status(lab: Lab) -> LabStatus:
    plan, cluster_state = lab.plan, read_folder(lab.api)
    return LabStatus(
        name=plan.name,
        proxy=plan.proxy,
        network=plan.network,
        api=str(lab.api),
        servers=lab.state.servers is not None and lab.state.servers.alive(),
        nodes=tuple(
            NodeStatus(
                name=item.name, addresses=item.addresses, podCIDRs=item.pod_cidrs, netns=item.netns
            )
            for item in plan.nodes
        ),
        services=tuple(
            ServiceStatus(
                namespace=item.namespace,
                name=item.name,
                what=SPECS[item.key].what,
                addresses=(*(item.cluster_ips or ("None",)), *item.external_ips),
                ports=_ports(item),
                pods=_unique(end.pod for end in cluster_state.endpoints.get(item.key, ())),
            )
            for item in cluster_state.services
        ),
        pods=tuple(
            PodStatus(
                namespace=item.namespace,
                name=item.name,
                node=item.node,
                addresses=item.addresses,
                netns=item.netns,
            )
            for item in plan.pods
        ),
        faults=tuple(
            FaultStatus(name=item.name, words=item.words, node=item.node, object=item.object)
            for item in (inject.find(broken.fault) for broken in lab.state.faults)
        ),
    )


def _ports(service: Service) -> tuple[str, ...]:
    return tuple(
        f"{port.port}{':' if port.node_port else ''}{port.node_port or ''}/{port.protocol.upper()}"
        for port in service.ports
    )


def _unique(names: Iterable[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(name.partition("/")[2] for name in names))


# --- as text ----------------------------------------------------------------------------------


def text(status: LabStatus) -> str:
    head = (
        f"lab {status.name}: proxy {status.proxy}, network {status.network}, "
        f"{len(status.nodes)} nodes"
    )
    parts = [head if status.servers else f"{head}\nits servers are gone: make it anew"]
    parts.append(
        table(
            ("NODE", "ADDRESSES", "PODS"),
            [
                (node.name * (number == 0), address, node.podCIDRs[number])
                for node in status.nodes
                for number, address in enumerate(node.addresses)
            ],
        )
    )
    for namespace in workloads.NAMESPACES:
        parts.append(_services(namespace, status))
    parts.append(_pods(status))
    parts.append(_faults(status))
    return "\n\n".join(parts)


def _services(namespace: str, status: LabStatus) -> str:
    mine = [service for service in status.services if service.namespace == namespace]
    rows = [
        (service.name, address, " ".join(service.ports), " ".join(service.pods) or "none")
        if number == 0
        else ("", address, "", "")
        for service in mine
        for number, address in enumerate(service.addresses)
    ]
    return table((f"SERVICE ({namespace})", "ADDRESS", "PORTS", "PODS"), rows)


def _pods(status: LabStatus) -> str:
    rows = [
        (pod.name, pod.node, *pod.addresses, f"({pod.namespace})" * (pod.namespace != "shop"))
        for pod in status.pods
    ]
    return table(("POD", "NODE", "IPV4", "IPV6", ""), rows)


def _faults(status: LabStatus) -> str:
    if not status.faults:
        return "no faults: everything works (break it: kptrace lab faults)"
    return table(
        ("FAULT", "WHAT"),
        [(fault.name, fault.words) for fault in status.faults],
    )


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns as wide as they must be."""
    lines = [head, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    )
