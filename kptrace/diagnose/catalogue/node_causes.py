"""Causes in one node: its filter rules, its forwarding, its tunnel. Pure; see causes.py."""

from __future__ import annotations

from kptrace.diagnose.catalogue.cause import catalogue

NETFILTER = catalogue(
    (
        "forward-policy-drop",
        "FORWARD's policy is DROP and no rule accepts the packet",
        "the packet fell through every rule of FORWARD to the chain's policy: Docker, ufw or the "
        "distribution set it, and the CNI's own accept rules are missing",
        "pods reach nothing beyond their own bridge; the node itself reaches everything",
        "let the CNI restore its FORWARD rules, or iptables -P FORWARD ACCEPT",
    ),
    (
        "chain-policy-drop",
        "a base chain's policy dropped the packet",
        "no rule of the chain accepted the packet and the chain's policy is drop (the one of "
        "FORWARD has an id of its own)",
        "everything of its kind is lost on this node, without an answer",
        "add a rule that accepts it before the chain ends, or set the chain's policy to accept",
    ),
    (
        "policy-drop",
        "a NetworkPolicy denies it",
        "a chain that the policy controller wrote for this pod dropped or rejected the packet: "
        "some policy selects the pod in this direction and no rule of any admits the translated "
        "address and port (policies see the backend's port, not the Service's), or one denies it "
        "outright",
        "only the pods that the policy selects are cut off, often from DNS first",
        "admit the peer and the target port in a NetworkPolicy that selects the pod, or take the "
        "denying rule away",
    ),
    (
        "rule-drop",
        "dropped by an iptables or nftables rule",
        "a rule that is neither kube-proxy's nor a tunnel's matched the packet and threw it away",
        "what the rule matches times out",
        "remove the rule or put an accept before it; when a policy controller wrote it, change "
        "the policy, for the controller writes the rule again",
    ),
    (
        "rule-reject",
        "rejected by an iptables or nftables rule",
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

FORWARDING = catalogue(
    (
        "no-route",
        "the pod has no route to the destination",
        "the routing table of the pod's own namespace has neither a default route nor one that "
        "covers the destination: the CNI did not finish the pod's setup",
        "the pod reaches nothing beyond its own network; the kernel says so at once",
        "delete the pod, so that the CNI sets its successor up anew; look at the CNI's log",
    ),
    (
        "ip-forward-off",
        "IP forwarding is off",
        "forwarding is 0 for the interface that the packet came in by; the kernel throws the "
        "packet away without an answer (the sysctl of the interface counts, not ip_forward alone)",
        "pods on this node reach nothing beyond it; the node itself reaches everything",
        "sysctl -w net.ipv4.ip_forward=1, and find what turned it off (a hardening script)",
    ),
    (
        "rp-filter",
        "the reverse-path filter dropped the packet",
        "rp_filter is strict, or a rule is (-m rpfilter), and the route back to the sender leads "
        "out by another interface",
        "one direction of asymmetric traffic is lost without an answer",
        "set rp_filter of that interface and of all to 2 (loose), or fix the route back",
    ),
    (
        "martian",
        "the kernel does not route this source address",
        "a packet with a loopback source address was to leave by an interface that does not "
        "allow it (route_localnet is 0), or came in with a source that is the receiver's own",
        "traffic from 127.0.0.1 to a node port or Service is lost on this node; or packets that "
        "should have been masqueraded on their way are",
        "use the node's own address instead, or sysctl net.ipv4.conf.all.route_localnet=1 where "
        "the proxy relies on it; look why the packet was not masqueraded",
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
        "routing-loop",
        "routing loop between nodes",
        "the routes of two nodes point at each other, until the packet's TTL is used up",
        "everything for that range is lost, and costs bandwidth",
        "compare the routes of both nodes for that range; restart the CNI's agent where one is "
        "wrong",
    ),
    (
        "blackhole-route",
        "dropped by a blackhole route",
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
        "xdp-drop",
        "an XDP program dropped the packet",
        "a program on the device threw the packet away before the kernel's own rules: a firewall, "
        "a load balancer or a protection against floods",
        "what the program matches is lost, and no rule or counter of netfilter shows it",
        "find whose program it is (ip -d link show dev DEV; bpftool prog); let its owner admit the "
        "packet",
    ),
    (
        "neighbour-failed",
        "no neighbour answers for the next hop",
        "the kernel asked for the link address of the next hop or of the pod and got no answer: "
        "the neighbour entry is FAILED or INCOMPLETE",
        "packets for that address wait and are lost some seconds later",
        "look whether the pod or node with that address still exists and is on this link",
    ),
    (
        "neighbour-stale",
        "the neighbour entry has the wrong link address",
        "the neighbour entry of the next address has a link address that its owner has not: it was "
        "written by hand, two have the same address, or a tunnel device was made anew; whoever "
        "hears the frame throws it away as not his",
        "nothing from this node reaches that address, until the entry is asked for anew",
        "ip neigh del ADDRESS dev DEV where it was learned; restart the CNI's agent where it was "
        "written; look for a second owner of the address",
    ),
    (
        "mtu-exceeded",
        "the packet is larger than a link on the way allows",
        "small packets pass and large ones do not: the tunnel's overhead does not fit the link "
        "below it, or the message that says so is filtered",
        "handshakes work; large requests and answers hang",
        "set the CNI's MTU to that of the uplink less the overhead (VXLAN 50, IPIP 20)",
    ),
    (
        "hairpin-off",
        "the bridge port has no hairpin mode",
        "a pod that reaches itself by its Service needs its bridge port in hairpin mode, and it "
        "is off: the frame is dropped on the bridge",
        "pods cannot reach themselves by their own Service; others can",
        "bridge link set dev VETH hairpin on, and hairpinMode in the CNI's configuration",
    ),
    (
        "port-isolated",
        "the bridge isolates the two ports from each other",
        "both ports of the bridge are isolated, and the bridge passes no frame between such ports",
        "pods on the same node cannot reach each other directly",
        "bridge link set dev VETH isolated off, and the setting in the CNI's configuration",
    ),
    (
        "reply-not-translated",
        "the reply reaches the client untranslated",
        "the answer came by a way on which no conntrack entry translates it back, so the client "
        "sees it come from a stranger and resets it",
        "connections are reset although the backend answers",
        "look why the answer does not pass the node that translated the question: routes, or a "
        "second interface of the pod",
    ),
)

TUNNEL = catalogue(
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
        "tunnel-device-missing",
        "no device decapsulates the tunnel's packets",
        "the encapsulated packet reached the other node and no tunnel device there has this "
        "kind, id and port: it was never made, was deleted, or differs between the nodes",
        "nothing from other nodes reaches any pod on that node",
        "restart the CNI's agent on that node, which makes the device; compare its id and port "
        "with the sender's",
    ),
    (
        "fdb-stale",
        "the tunnel's FDB entry names the wrong node",
        "the forwarding entry of the tunnel device gives an address that is not the other node's: "
        "it was replaced or has a new address, and the entry was not",
        "pods on this node cannot reach any pod on the other one",
        "bridge fdb replace MAC dev flannel.1 dst NODE-ADDRESS; restart the CNI's agent",
    ),
    (
        "fdb-missing",
        "the tunnel has no FDB entry for the destination",
        "the tunnel device has no forwarding entry for the other node's link address: it drops "
        "the packet and sends nothing below",
        "pods on this node cannot reach any pod on the other one",
        "bridge fdb append MAC dev flannel.1 dst NODE-ADDRESS; restart the CNI's agent",
    ),
    (
        "vtep-neighbour-missing",
        "no neighbour entry for the tunnel's remote end",
        "the neighbour entry of the other node's tunnel address is missing, and a tunnel device "
        "that does not learn never asks for it",
        "pods on this node cannot reach any pod on the other one",
        "ip neigh replace ADDRESS lladdr MAC dev flannel.1 nud permanent; restart the CNI's agent",
    ),
    (
        "wireguard-peer-missing",
        "no WireGuard peer allows the destination",
        "no peer of the device has the destination (or, at the far end, the source) among its "
        "allowed IPs, or the one that has it has no endpoint: the kernel refuses the packet",
        "pods of one node cannot reach those of another; the nodes reach each other",
        "wg show DEVICE allowed-ips; restart the CNI's agent on both nodes: it writes the peers",
    ),
)
