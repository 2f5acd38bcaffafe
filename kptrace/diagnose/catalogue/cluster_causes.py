"""Causes in what the cluster says and its proxy programs, in DNS, and those left open. Pure; see
causes.py.
"""

from __future__ import annotations

from kptrace.diagnose.catalogue.cause import catalogue

SERVICE = catalogue(
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
        "the rules send to an address that is not an endpoint",
        "a rule rewrites to an address that the Service's EndpointSlices do not hold: the pod is "
        "gone and kube-proxy has not written its rules since, or another writer's rules win",
        "the share of connections that is sent to the dead address times out",
        "look whether kube-proxy on that node still syncs (its log, :10256/healthz); restart it",
    ),
    (
        "ipvs-weight-zero",
        "all IPVS servers of the Service have weight 0",
        "every server of the virtual service has weight 0: kube-proxy sets that while it takes "
        "servers away gracefully, or somebody else did; the kernel answers with an ICMP error",
        "new connections are refused at once, while old ones go on",
        "restart kube-proxy on that node; it sets the weights of its servers to 1",
    ),
    (
        "ipvs-no-server",
        "IPVS has no server for the Service",
        "the API has ready endpoints, but the virtual service on this node has no server: "
        "kube-proxy has not written since they came, or its servers were removed",
        "clients on this node are refused at once; clients on other nodes are not",
        "look whether kube-proxy on that node still syncs (its log, :10256/healthz); restart it",
    ),
    (
        "ipvs-address-missing",
        "the Service's address is not on kube-ipvs0",
        "IPVS takes packets in INPUT, and only those for an address of the node's own get there: "
        "without the address on the dummy device they leave by the default route",
        "clients on this node time out; ipvsadm looks right",
        "restart kube-proxy on that node; look what removes addresses (a network manager that "
        "does not leave kube-ipvs0 alone)",
    ),
    (
        "ipvs-conntrack-off",
        "IPVS connections are not in conntrack",
        "net.ipv4.vs.conntrack is 0: IPVS takes conntrack away from what it sends on, so no rule "
        "can masquerade it, and rules that drop what conntrack calls INVALID drop its answers",
        "what needs masquerading is lost (hairpin, the node itself, node ports), and with Calico "
        "every answer; ipvsadm looks right",
        "sysctl -w net.ipv4.vs.conntrack=1 on that node; kube-proxy sets it when it starts",
    ),
    (
        "no-such-port",
        "the Service has no such port",
        "the address is a Service's ClusterIP, but the Service has no port of that number and "
        "protocol, so no rule translates it (in nftables mode kube-proxy rejects it)",
        "every connection to that port fails; the Service's own ports work",
        "use one of the Service's ports, or add the port to the Service",
    ),
    (
        "endpoint-missing",
        "endpoint missing from the rules",
        "the EndpointSlices hold a ready endpoint that this node should send to and no rule of it "
        "does: kube-proxy has not written its rules since the endpoint came",
        "the other backends carry its share, or clients are refused as if there were none",
        "look whether kube-proxy on that node still syncs (its log, :10256/healthz); restart it",
    ),
    (
        "endpoint-duplicated",
        "endpoint duplicated in the rules",
        "one way in leads to the same address and port by several rules",
        "this backend gets more than its share of the connections",
        "restart kube-proxy on that node; look who else writes to its chains",
    ),
    (
        "endpoint-weight",
        "an endpoint has the wrong weight in the rules",
        "the chances that the rules give do not add up to equal shares: a rule was added or lost "
        "after kube-proxy wrote them",
        "some backends get more of the connections than others",
        "restart kube-proxy on that node; look who else writes to its chains",
    ),
    (
        "endpoint-left-out",
        "this node leaves out some endpoints by design",
        "topology hints, a traffic policy Local, or an endpoint's own state keep it out of this "
        "node's rules; it is told so that it is not taken for a fault",
        "clients on this node reach only the others",
        "nothing is broken; change the policy or hints where this is not wanted",
    ),
    (
        "topology-hints-ignored",
        "this node ignores the topology hints",
        "the EndpointSlices carry hints for this node or its zone, and its rules use all ready "
        "endpoints: kube-proxy before 1.31 obeys hints only where the Service asks for them by "
        "annotation, and each kind of hint has its own feature gate",
        "connections also go to other zones and nodes",
        "nothing is broken; update kube-proxy if the traffic should stay near",
    ),
    (
        "not-proxied",
        "no proxy writes rules for this kind of Service",
        "a headless Service, one of type ExternalName or one that names another proxy (label "
        "service.kubernetes.io/service-proxy-name) is left alone by kube-proxy",
        "clients reach what its name resolves to, without any rule",
        "nothing is broken; trace the name or a pod instead",
    ),
    (
        "conflicting-nat-tables",
        "two nat tables translate Services",
        "rules for Services stand in more than one of iptables-legacy, iptables-nft and the table "
        "of nftables mode; the one that was loaded last decides, the counters of the other stay "
        "at 0",
        "traffic follows old rules, and a reboot may turn it round",
        "clear the rules of the one that is not in use, and let all tools use the same one",
    ),
    (
        "ruleset-unstable",
        "the rules kept changing while they were read",
        "rules are read part by part, and each part says which generation of the whole it is of; "
        "looked at several times in a row, the parts were never of one: kube-proxy is busy, or two "
        "programs undo each other's rules again and again",
        "what is told of the rules may mix older and newer ones, and name as missing or stale what "
        "was about to be written",
        "look again; if it stays so, nft monitor shows what changes",
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
        "node-not-ready",
        "a node is NotReady",
        "the node's Ready condition is not True: its kubelet does not report, or says that it "
        "lacks something. What its kernel forwards it may go on forwarding, so this alone proves "
        "nothing of a packet",
        "its pods count as not ready and leave the EndpointSlices; no pod can be started there",
        "kubectl describe node NODE; look at its kubelet, its disk and its memory",
    ),
    (
        "no-local-endpoints",
        "traffic policy Local, and no endpoint on this node",
        "the Service's internal or external traffic policy is Local, so only endpoints on the "
        "same node may answer, and there is none; the packet is dropped without a word",
        "it works on nodes that run a backend and hangs on the others",
        "run a backend on that node (a DaemonSet), or set the traffic policy to Cluster",
    ),
    (
        "no-listener",
        "nothing listens on the target port",
        "the packet reached the backend's namespace and the pod's own kernel refused it: a RST, "
        "or port unreachable for UDP, that comes from the pod and not from a rule",
        "connections to this backend are refused at once",
        "set the Service's targetPort to the port the container listens on, and let it listen "
        "on all addresses, not on 127.0.0.1 only",
    ),
    (
        "sidecar",
        "the pod hands the connection to a proxy of its own",
        "a service mesh's nat rules in the pod's namespace redirect it to the sidecar's port: the "
        "packet's way ends there, and the proxy opens a connection of its own",
        "what the proxy does decides where the request goes, and may fail although this was "
        "delivered",
        "ask the mesh where its proxy sends (istioctl proxy-config, linkerd diagnostics)",
    ),
)

DNS = catalogue(
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
        "the question was refused on its way: no route to the server, or an ICMP error or a reset "
        "in place of an answer, because nothing serves there or a rule rejects it",
        "every name lookup fails at once",
        "look at the nameserver in the pod's resolv.conf and at the DNS Service's endpoints",
    ),
    (
        "dns-refused",
        "the DNS server refused the question",
        "the server answered REFUSED: it does not serve this zone or not this client",
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
        "the DNS server's answer is malformed",
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
        "DNS answers slowly",
        "the answer took more than a second: a lost question was sent again, or many names of "
        "the search list were asked first",
        "the first connection of a client starts late",
        "end the name with a dot or lower ndots; look for lost UDP to the DNS Service",
    ),
)

OLDER = catalogue(
    (
        "connection-stale",
        "older connections go to a backend that is gone",
        "conntrack keeps the backend that was chosen when a connection began: entries of the "
        "sender for this Service lead to an address that is no endpoint, or were made before "
        "there was a rule and are not translated",
        "a client that keeps its socket (a resolver, a pool of connections) is cut off, while "
        "everything new works",
        "conntrack -D -p PROTOCOL --orig-dst ADDRESS --reply-src BACKEND, or restart the client; "
        "look why kube-proxy did not delete the entries of UDP (its log says when it could not)",
    ),
)

OPEN = catalogue(
    (
        "kernel-drop",
        "dropped by the kernel",
        "the kernel reported the drop with its reason and function, and no known cause fits them",
        "this packet was lost; whether others are depends on the reason",
        "look the reason up in include/net/dropreason-core.h of the kernel's source",
    ),
    (
        "lost-between-nodes",
        "packet lost in the underlay network",
        "it left the one node's own interface and never came to the other's, and neither kernel "
        "threw it away: a security group, a firewall, a router without a route to the pods, or a "
        "check of source addresses lies between them",
        "pods on these two nodes cannot reach each other; the same node works",
        "let the tunnel pass between all nodes (UDP 8472 for Flannel's VXLAN, 4789 for Calico's, "
        "IP protocol 4 for IPIP); without a tunnel route the pods' addresses and turn off the "
        "check of source and destination",
    ),
    (
        "lost-unexplained",
        "packet lost, no drop reason reported",
        "every tap on the way watched, the packet passed the last one and not the next, and the "
        "kernel reported no drop: it was lost between them, most often on the wire or in a device",
        "this packet was lost; how many others are is not known",
        "look at the two devices' error counters (ip -s link) and at what joins them",
    ),
    (
        "not-observed",
        "what became of the packet was not observed",
        "a source of evidence was missing or lost reports just where it mattered, so nothing is "
        "claimed",
        "not known",
        "give the missing source what it needs, or trace again",
    ),
)
