"""IPVS in one namespace: it takes packets for its virtual services and translates their answers.

Only masquerading (NAT) is followed, which is all that kube-proxy uses.

Theory (ip_vs_core.c, ip_vs_xmit.c). Requests are taken in input (99, just before nat) and in output
(-98): a packet has to be the node's own to get there, hence the addresses on kube-ipvs0. Its
destination becomes the server's, and it passes output and postrouting (again) with the connection
that it has; unless the server is on the node itself: then it goes on as it is. With
``net.ipv4.vs.conntrack`` the conntrack entry expects its answer from the server, but is not marked
as a DNAT; without, the packet is tracked no more, so no rule can masquerade it. Answers are
translated in forward (100), or in input and output where client or server are the node itself.

A virtual service without a server that takes new connections answers with an ICMP error.

Which server is chosen cannot be computed from outside: the schedulers go by a counter, by the
connections that are open, or by a hash. So each server is a branch of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import msgspec

from kptrace.model import Flow, Outcome, RuleRef, SimulatedStep, StepAction, Value
from kptrace.rules.ipvs.ipvsadm import PersistentClient, RealServer, VirtualService
from kptrace.simulate.branching import BranchPoints
from kptrace.simulate.ip.routing import RouteQuery, lookup
from kptrace.simulate.ip.skb import Skb
from kptrace.simulate.snapshot.snapshot import Snapshot
from kptrace.simulate.stages import Terminated

# hook -> priority of (answers, requests)
PRIORITIES = {"input": (98, 99), "forward": (100, None), "output": (-99, -98)}
SCHEDULERS = {
    "rr": "rr takes them in turn",
    "wrr": "wrr takes them in turn, as often as their weights say",
    "lc": "lc takes the one with the fewest connections",
    "wlc": "wlc takes the one with the fewest connections for its weight",
    "sed": "sed takes the one with the shortest expected delay",
    "nq": "nq takes an idle one, else the one with the shortest expected delay",
    "sh": "sh goes by a hash of the client's address, so each client has its server",
    "dh": "dh goes by a hash of the Service's address, so all clients have the same server",
    "mh": "mh goes by a Maglev hash of the client's address, so each client has its server",
    "lblc": "lblc takes the same one for an address while it is not overloaded",
    "lblcr": "lblcr takes one out of the same few for an address",
    "fo": "fo takes the one with the greatest weight",
    "ovf": "ovf takes the one with the greatest weight that has room",
}
# with the flag sh-port or mh-port (kube-proxy sets it for mh)
BY_PORT = {
    "sh": "sh goes by a hash of the client's address and port",
    "mh": "mh goes by a Maglev hash of the client's address and port",
}
NO_SERVER = "no server"
QUIESCENT = "net.ipv4.vs.expire_quiescent_template"
EXPIRES_SOON = 10  # seconds; a template that ends within them may be gone when the packet comes
_WEIGHTED = frozenset({"wrr", "wlc", "sed", "nq", "sh", "dh", "mh"})


class SentByIpvs(Value):
    """IPVS sends it on: to be routed by its new destination, through output again."""


class Refused(Value):
    """No server takes the packet: there is none (``NO_SERVER``), or all have weight 0."""

    ref: RuleRef


class Balanced(msgspec.Struct):
    """A connection that IPVS knows: the client's flow to the service, and its server."""

    asked: Flow
    server: tuple[str, int]


class Ipvs(msgspec.Struct):
    """IPVS of one namespace. ``add_step`` takes the steps; ``known`` are its connections."""

    snapshot: Snapshot
    choices: BranchPoints
    add_step: Callable[[SimulatedStep], None]
    known: list[Balanced] = msgspec.field(default_factory=list)

    def answer(self, hook: str, skb: Skb) -> None:
        """Give a server's answer the service's address again."""
        if skb.ipvs:
            return
        flow = skb.flow
        for balanced in self.known:
            asked = balanced.asked
            from_server = (flow.protocol, flow.src, flow.sport) == (
                asked.protocol,
                *balanced.server,
            )
            if from_server and (flow.dst, flow.dport) == (asked.src, asked.sport):
                skb.set_source(asked.dst, asked.dport)
                description = f"{flow.src} => {asked.dst}, IPVS takes the translation back"
                self._step(skb, hook, "snat", description)
                return

    def request(self, hook: str, skb: Skb) -> SentByIpvs | Refused | None:
        """Send a packet for a virtual service to a server; None where IPVS does not take it."""
        service = None if skb.ipvs else self._service(skb)
        if service is None:
            return None
        kept = self._kept_at(service, skb.flow.src)
        if kept is not None:
            return self._send(hook, skb, service, kept)
        willing = [server for server in service.servers if server.weight > 0]
        if not willing:
            return self._refused(hook, skb, service)
        by_weight = service.scheduler in _WEIGHTED
        weights = [float(server.weight) if by_weight else 1.0 for server in willing]
        return self._send(hook, skb, service, willing[self.choices.pick(weights)])

    def _kept_at(self, service: VirtualService, client: str) -> RealServer | None:
        """Return the server that an earlier connection bound the client to, if it still may
        have it.

        Also one of weight 0, unless a sysctl (kube-proxy sets it) forbids that
        (ip_vs_check_template).
        """
        binding = service.client_binding(client)
        server = _bound_server(service, binding) if binding else None
        if binding is None or server is None:
            return None
        if binding.seconds < EXPIRES_SOON:
            self.choices.certain = False
        expires = self.snapshot.sysctl(QUIESCENT) if server.weight == 0 else 0
        if expires is None:
            self.choices.certain = False
        return None if expires else server

    def _service(self, skb: Skb) -> VirtualService | None:
        flow = skb.flow
        virtual = self.snapshot.virtual
        if skb.known_mark is None and any(key[0] == "fwmark" for key in virtual):
            self.choices.certain = False
        return (
            virtual.get(("fwmark", flow.family, skb.mark) if skb.mark else ("", "", 0))
            or virtual.get((flow.protocol, flow.dst, flow.dport))
            or virtual.get((flow.protocol, flow.dst, 0))
        )

    def _send(
        self, hook: str, skb: Skb, service: VirtualService, server: RealServer
    ) -> SentByIpvs | None:
        if server.method != "masq":
            self.choices.certain = False
            description = f"IPVS forwards by the method {server.method}, which is not followed here"
            raise Terminated(Outcome.INCONCLUSIVE, None, service_name(service), description)
        asked = skb.flow
        where = server.address, server.port or asked.dport
        self.known.append(Balanced(asked, where))
        skb.ipvs = True
        skb.set_destination(*where)
        if self.snapshot.sysctl("net.ipv4.vs.conntrack"):
            if skb.tracked is not None:
                entry = skb.tracked.connection
                entry.reply = msgspec.structs.replace(entry.reply, src=where[0], sport=where[1])
        else:
            skb.tracked, skb.untracked = None, True
        description = persistence_description(service, server, asked.src) or scheduling_description(
            service
        )
        ref = _rule_ref(service, server, f"{server_load(server)}: {description}")
        self._step(skb, hook, "dnat", description, ref)
        here = lookup(self.snapshot, RouteQuery(flow=skb.flow, mark=skb.known_mark)).local
        return None if here else SentByIpvs()

    def _refused(self, hook: str, skb: Skb, service: VirtualService) -> Refused:
        empty = not service.servers
        what = "has no server" if empty else "has only servers of weight 0"
        description = f"IPVS {what} for {service_name(service)} and refuses"
        ref = _rule_ref(service, None, description)
        self._step(skb, hook, "rejected", description, ref)
        return Refused(ref=ref)

    def _step(
        self, skb: Skb, hook: str, action: StepAction, description: str, ref: RuleRef | None = None
    ) -> None:
        self.add_step(
            SimulatedStep(
                netns=skb.netns,
                action=action,
                packet=skb.packet,
                interface=skb.oif if hook == "output" else skb.iif,
                hook=hook,
                rule=ref,
                description=description,
                deterministic=self.choices.certain,
            )
        )


def scheduling_description(service: VirtualService) -> str:
    """Describe how the server is chosen."""
    willing = sum(server.weight > 0 for server in service.servers)
    if willing == 1:
        return f"IPVS has one server that takes connections{_persistence_clause(service)}"
    how = _scheduler_description(service) + _persistence_clause(service)
    return f"IPVS chooses one of {willing} servers: {how}"


def _persistence_clause(service: VirtualService) -> str:
    if not service.persistent:
        return ""
    return f"; a client keeps its server for {_duration(service.persistent)}"


def _bound_server(service: VirtualService, bound: PersistentClient) -> RealServer | None:
    where = bound.address, bound.port
    return next(
        (server for server in service.servers if (server.address, server.port) == where), None
    )


def persistence_description(service: VirtualService, server: RealServer, client: str) -> str:
    """Describe why an earlier connection binds the client to this server; empty: it does not."""
    binding = service.client_binding(client)
    if binding is None or _bound_server(service, binding) is not server:
        return ""
    where = _endpoint_text(server.address, server.port)
    return f"an earlier connection of this client binds it to {where} for {binding.seconds} s more"


def choice_description(service: VirtualService, number: int, by: str, client: str = "") -> str:
    """Describe a server that was chosen: its load before and why.

    by: the table (conntrack or IPVS) that confirms the choice; empty: none
    client: the client's address, where known
    """
    server = service.servers[number - 1]
    if kept := persistence_description(service, server, client):
        return f"{server_load(server)}: taken, as {kept}" + (f"; {by} has it" if by else "")
    rivals = any(rival.weight for rival in service.servers if rival is not server)
    why = _scheduler_description(service) if rivals else "no other takes connections"
    if service.persistent and rivals:
        why = f"a client keeps its server for {_duration(service.persistent)}; the first time {why}"
    return f"{server_load(server)}: taken, as {why}" + (f"; {by} has it" if by else "")


def _scheduler_description(service: VirtualService) -> str:
    name = service.scheduler
    by_port = f"{name}-port" in service.flags and name in BY_PORT
    return BY_PORT[name] if by_port else SCHEDULERS.get(name, f"{name} decides")


def _duration(seconds: int) -> str:
    for size, name in ((3600, "h"), (60, "min")):
        if seconds % size == 0:
            return f"{seconds // size} {name}"
    return f"{seconds} s"


def _rule_ref(service: VirtualService, server: RealServer | None, description: str = "") -> RuleRef:
    """Return a virtual service as a rule: the service is the chain, the server's place the
    number.
    """
    number = service.servers.index(server) + 1 if server else 0
    text = NO_SERVER if not service.servers else "-w 0"
    if server:
        text = f"-r {_endpoint_text(server.address, server.port)} -m -w {server.weight}"
    return RuleRef(
        backend="ipvs",
        family=service.family,
        table="ipvs",
        chain=service_name(service),
        number=number,
        text=text,
        description=description
        or (
            f"{server_load(server)}: {scheduling_description(service)}"
            if server
            else scheduling_description(service)
        ),
    )


def server_load(server: RealServer) -> str:
    """Return ``10.244.1.11:8080 weight 1, active 0, inactive 2``: the connections that it had."""
    text = f"{_endpoint_text(server.address, server.port)} weight {server.weight}"
    if server.active is None:
        return text
    return f"{text}, active {server.active}, inactive {server.inactive}"


def other_servers(service: VirtualService, ref: RuleRef) -> Iterator[RuleRef]:
    """Yield the servers that were not chosen, as rules."""
    for number, server in enumerate(service.servers, 1):
        if number != ref.number:
            yield _rule_ref(service, server, server_load(server))


def service_name(service: VirtualService) -> str:
    """Return ``10.96.0.10:53/udp`` or ``mark 7``: the name of a virtual service in reports."""
    if service.protocol == "fwmark":
        return f"mark {service.fwmark}"
    return f"{_endpoint_text(service.address, service.port)}/{service.protocol}"


def _endpoint_text(address: str, port: int) -> str:
    return f"[{address}]:{port}" if ":" in address else f"{address}:{port}"
