"""The catalogue of causes: stable id -> what is wrong, what follows from it, what mends it. Pure.

A finding names its cause by one of these ids; the README's list, ``kptrace causes`` and the "So"
line of a report are made from this table. An id never changes its meaning and is never used again
for another one.

    title    what is wrong, as a heading
    meaning  what that is and what proves it, apart from what it could be mistaken for
    effect   what users notice
    mend     what usually mends it; a finding's own remedy names the node and the object
"""

from __future__ import annotations

from kptrace.model import Value


class Cause(Value):
    id: str
    title: str
    meaning: str
    effect: str
    mend: str


def _catalogue(*rows: tuple[str, str, str, str, str]) -> dict[str, Cause]:
    return {
        id: Cause(id=id, title=title, meaning=meaning, effect=effect, mend=mend)
        for id, title, meaning, effect, mend in rows
    }


SERVICE = _catalogue(
    (
        "proxy-rules-missing",
        "the node has no rule for the Service",
        "the API has ready endpoints, but no rule on this node matches the Service's address and "
        "port, so the packet goes on untranslated: kube-proxy is not running there, cannot reach "
        "the API, or its rules were flushed",
        "clients on this node cannot reach the Service; clients on other nodes can",
        "look at kube-proxy's pod and log on that node, and restart it: it writes all rules anew",
    ),
    (
        "stale-dnat",
        "the rules send to an address that is no endpoint",
        "a rule rewrites to an address that the Service's EndpointSlices do not hold: the pod is "
        "gone and kube-proxy has not written its rules since, or another writer's rules win",
        "the share of connections that is sent to the dead address times out",
        "look whether kube-proxy on that node still syncs (its log, :10256/healthz); restart it",
    ),
    (
        "no-endpoints",
        "the Service has no ready endpoint",
        "no EndpointSlice of the Service holds a ready address, so kube-proxy rejects its "
        "connections: the selector matches no pod, or no pod that it matches is ready",
        "clients on every node are refused at once",
        "compare the Service's selector with the pods' labels, and look why the pods are not ready",
    ),
    (
        "no-local-endpoints",
        "the traffic policy is Local, and no endpoint is here",
        "the Service's internal or external traffic policy is Local, so only endpoints on the "
        "same node may answer, and there is none; the packet is dropped without a word",
        "it works on nodes that run a backend and hangs on the others",
        "run a backend on that node (a DaemonSet), or set the traffic policy to Cluster",
    ),
    (
        "nobody-listens",
        "nothing listens on the target port",
        "the packet reached the backend's namespace and the pod's own kernel refused it: a RST, "
        "or port unreachable for UDP, that comes from the pod and not from a rule",
        "connections to this backend are refused at once",
        "set the Service's targetPort to the port the container listens on, and let it listen "
        "on all addresses, not on 127.0.0.1 only",
    ),
)

NETFILTER = _catalogue(
    (
        "forward-policy-drop",
        "FORWARD's policy is DROP and no rule accepts the packet",
        "the packet fell through every rule of FORWARD to the chain's policy: Docker, ufw or the "
        "distribution set it, and the CNI's own accept rules are missing",
        "pods reach nothing beyond their own bridge; the node itself reaches everything",
        "let the CNI restore its FORWARD rules, or iptables -P FORWARD ACCEPT",
    ),
    (
        "policy-drop",
        "a NetworkPolicy denies it",
        "a chain that the policy controller wrote for this pod dropped the packet: some policy "
        "selects the pod in this direction and no rule of any admits the translated address and "
        "port (policies see the backend's port, not the Service's)",
        "only the pods that the policy selects are cut off, often from DNS first",
        "admit the peer and the target port in a NetworkPolicy that selects the pod",
    ),
    (
        "rule-drop",
        "a rule dropped the packet",
        "a rule that is neither kube-proxy's nor a tunnel's matched the packet and threw it away",
        "what the rule matches times out",
        "remove the rule or put an accept before it; when a policy controller wrote it, change "
        "the policy, for the controller writes the rule again",
    ),
    (
        "rule-reject",
        "a rule rejected the packet",
        "a REJECT rule matched the packet; the sender got an ICMP error or a RST from the node, "
        "not from the backend",
        "what the rule matches is refused at once",
        "remove the rule or put an accept before it; when a policy controller wrote it, change "
        "the policy, for the controller writes the rule again",
    ),
    (
        "bridge-nf-off",
        "bridged packets bypass netfilter",
        "net.bridge.bridge-nf-call-iptables is 0 or br_netfilter is not loaded: the answer of a "
        "backend on the client's own bridge is never translated back, so the client sees it come "
        "from a stranger and resets it",
        "the Service works unless the backend runs on the client's node",
        "modprobe br_netfilter, set the sysctl to 1, and keep both over a reboot",
    ),
)

FORWARDING = _catalogue(
    (
        "ip-forward-off",
        "the kernel does not forward",
        "forwarding is 0 for the interface that the packet came in by; the kernel throws the "
        "packet away without an answer (the sysctl of the interface counts, not ip_forward alone)",
        "pods on this node reach nothing beyond it; the node itself reaches everything",
        "sysctl -w net.ipv4.ip_forward=1, and find what turned it off (a hardening script)",
    ),
    (
        "rp-filter",
        "the reverse-path filter dropped the packet",
        "rp_filter is strict and the route back to the sender leads out by another interface",
        "one direction of asymmetric traffic is lost without an answer",
        "set rp_filter of that interface and of all to 2 (loose), or mend the route back",
    ),
    (
        "pod-route-missing",
        "the node has no route to the backend's pod network",
        "no route covers the pod range of the other node, so the packet is refused or leaves by "
        "the default route",
        "pods on this node cannot reach any pod on the other one",
        "restart the CNI's agent on this node, which writes the route anew; look whether the "
        "other node's podCIDR and annotations are right",
    ),
    (
        "blackhole-route",
        "a route throws the packet away",
        "the route that matches is a blackhole, prohibit or unreachable one",
        "everything for that range is lost on this node",
        "delete the route, or add a more exact one to the pods",
    ),
    (
        "link-down",
        "an interface on the way is down",
        "the route leads out of an interface that is down or has no carrier",
        "everything behind that interface is cut off from this node",
        "ip link set DEV up; when it falls again, look at the CNI's agent and the cable",
    ),
    (
        "neighbour-failed",
        "nobody answers for the next address",
        "the kernel asked for the link address of the next hop or of the pod and got no answer: "
        "the neighbour entry is FAILED or INCOMPLETE",
        "packets for that address wait and are lost some seconds later",
        "look whether the pod or node with that address still exists and is on this link",
    ),
    (
        "mtu",
        "the packet is larger than a link on the way allows",
        "small packets pass and large ones do not: the tunnel's overhead does not fit the link "
        "below it, or the message that says so is filtered",
        "handshakes work; large requests and answers hang",
        "set the CNI's MTU to that of the uplink less the overhead (VXLAN 50, IPIP 20)",
    ),
    (
        "hairpin-off",
        "the bridge does not send back to the port of origin",
        "a pod that reaches itself by its Service needs its bridge port in hairpin mode, and it "
        "is off: the frame is dropped on the bridge",
        "pods cannot reach themselves by their own Service; others can",
        "bridge link set dev VETH hairpin on, and hairpinMode in the CNI's configuration",
    ),
)

TUNNEL = _catalogue(
    (
        "tunnel-port-blocked",
        "the tunnel's port is blocked",
        "the encapsulated packet reached the other node, or left for it, and a firewall threw it "
        "away before the tunnel device: the inner packet never appears there",
        "nothing from other nodes reaches any pod behind that tunnel; the same node works",
        "let the tunnel in: UDP 8472 for Flannel's VXLAN, 4789 for Calico's, 6081 for Geneve, "
        "IP protocol 4 for IPIP",
    ),
    (
        "fdb-stale",
        "the tunnel sends to the wrong node",
        "the forwarding entry of the tunnel device gives an address that is not the other node's: "
        "it was replaced or has a new address, and the entry was not",
        "pods on this node cannot reach any pod on the other one",
        "bridge fdb replace MAC dev flannel.1 dst NODE-ADDRESS; restart the CNI's agent",
    ),
    (
        "fdb-missing",
        "the tunnel does not know where to send",
        "the tunnel device has no forwarding entry for the other node's link address: it drops "
        "the packet and sends nothing below",
        "pods on this node cannot reach any pod on the other one",
        "bridge fdb append MAC dev flannel.1 dst NODE-ADDRESS; restart the CNI's agent",
    ),
    (
        "vtep-neighbour-missing",
        "the tunnel's far end has no link address here",
        "the neighbour entry of the other node's tunnel address is missing, and a tunnel device "
        "that does not learn never asks for it",
        "pods on this node cannot reach any pod on the other one",
        "ip neigh replace ADDRESS lladdr MAC dev flannel.1 nud permanent; restart the CNI's agent",
    ),
)

DNS = _catalogue(
    (
        "dns-timeout",
        "no DNS server answered",
        "the pod's resolver sent its question and no server answered in time; trace the DNS "
        "Service itself to see where the question is lost",
        "every name lookup waits for seconds, then fails",
        "kptrace svc/kube-dns:53/udp -n kube-system from the same pod; often a network policy "
        "that forbids UDP 53",
    ),
    (
        "dns-unreachable",
        "the DNS server cannot be reached",
        "the question was refused on its way: no route to the server, or nothing serves there",
        "every name lookup fails at once",
        "look at the nameserver in the pod's resolv.conf and at the DNS Service's endpoints",
    ),
    (
        "dns-refused",
        "the DNS server refused the question",
        "the server answered REFUSED: it does not serve this zone or not this client, or an ICMP "
        "error came in its place",
        "the name does not resolve in this pod",
        "look at the server's zones and access lists; in a pod, at dnsPolicy and dnsConfig",
    ),
    (
        "dns-servfail",
        "the DNS server failed",
        "the server answered SERVFAIL: it cannot reach the API or the server that it asks itself",
        "the name does not resolve, or only at times",
        "look at CoreDNS's log: its access to the API, its forwarders, a forwarding loop",
    ),
    (
        "dns-malformed",
        "what came back is no DNS answer",
        "the message could not be read, or answered another question: something else than a DNS "
        "server sits on the port, or something on the way changes the message",
        "the name does not resolve in this pod",
        "look what serves at the nameserver's address, and ask it by hand",
    ),
    (
        "dns-nxdomain",
        "the name does not exist in DNS",
        "each name that the search list makes was answered with NXDOMAIN although the API has the "
        "Service: the server has not learned of it, or the search list lacks its namespace",
        "the name does not resolve in this pod",
        "write the name with its namespace; look at the pod's search list and at CoreDNS's log",
    ),
    (
        "dns-no-address",
        "the name has no address in DNS",
        "the name exists but the answer holds no address: a headless Service without ready "
        "endpoints, or one of the other IP family only",
        "the name does not resolve to anything that can be connected to",
        "look at the Service's endpoints and at its ipFamilies",
    ),
    (
        "dns-address-differs",
        "DNS gives another address than the API",
        "the address in the answer is none that the API has for the Service: a stale cache, a "
        "rewrite in the server, or a server that serves another cluster",
        "clients that use the name go somewhere else than those that use the address",
        "look which server answered and when its record expires; restart NodeLocal DNS or CoreDNS",
    ),
    (
        "dns-slow",
        "DNS answers late",
        "the answer took more than a second: a lost question was sent again, or many names of "
        "the search list were asked first",
        "the first connection of a client starts late",
        "end the name with a dot or lower ndots; look for lost UDP to the DNS Service",
    ),
)

OPEN = _catalogue(
    (
        "kernel-drop",
        "the kernel dropped the packet for a reason of its own",
        "the kernel reported the drop with its reason and function, and no known cause fits them",
        "this packet was lost; whether others are depends on the reason",
        "look the reason up in include/net/dropreason-core.h of the kernel's source",
    ),
    (
        "lost-unexplained",
        "the packet was lost and nobody said why",
        "every tap on the way watched, the packet passed the last one and not the next, and the "
        "kernel reported no drop: it was lost between them, most often on the wire or in a device",
        "this packet was lost; how many others are is not known",
        "look at the two devices' error counters (ip -s link) and at what joins them",
    ),
    (
        "not-seen",
        "what became of the packet was not observed",
        "a source of evidence was missing or lost reports just where it mattered, so nothing is "
        "claimed",
        "not known",
        "give the missing source what it needs, or trace again",
    ),
)

CAUSES: dict[str, Cause] = SERVICE | NETFILTER | FORWARDING | TUNNEL | DNS | OPEN


def cause(id: str) -> Cause | None:
    """The entry of this id; None for one that a plugin made up and this catalogue lacks."""
    return CAUSES.get(id)
