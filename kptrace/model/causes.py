"""The stable ids of causes: what a finding or a simulated branch names as the reason.

An id never changes its meaning and is never used again for another one. What each means and how it
is fixed stands in the catalogue (``diagnose/catalogue``); a CNI plugin may add ids of its own.
"""

from __future__ import annotations

from enum import StrEnum


class CauseId(StrEnum):
    """Every cause of the catalogue, grouped as the catalogue groups them."""

    # the Service, its endpoints and what the proxy wrote for them
    PROXY_RULES_MISSING = "proxy-rules-missing"
    STALE_DNAT = "stale-dnat"
    IPVS_WEIGHT_ZERO = "ipvs-weight-zero"
    IPVS_NO_SERVER = "ipvs-no-server"
    IPVS_ADDRESS_MISSING = "ipvs-address-missing"
    IPVS_CONNTRACK_OFF = "ipvs-conntrack-off"
    NO_SUCH_PORT = "no-such-port"
    ENDPOINT_MISSING = "endpoint-missing"
    ENDPOINT_DUPLICATED = "endpoint-duplicated"
    ENDPOINT_WEIGHT = "endpoint-weight"
    ENDPOINT_LEFT_OUT = "endpoint-left-out"
    TOPOLOGY_HINTS_IGNORED = "topology-hints-ignored"
    NOT_PROXIED = "not-proxied"
    CONFLICTING_NAT_TABLES = "conflicting-nat-tables"
    RULESET_UNSTABLE = "ruleset-unstable"
    NO_ENDPOINTS = "no-endpoints"
    NODE_NOT_READY = "node-not-ready"
    NO_LOCAL_ENDPOINTS = "no-local-endpoints"
    NO_LISTENER = "no-listener"
    SIDECAR = "sidecar"
    # a node's filter rules
    FORWARD_POLICY_DROP = "forward-policy-drop"
    CHAIN_POLICY_DROP = "chain-policy-drop"
    POLICY_DROP = "policy-drop"
    RULE_DROP = "rule-drop"
    RULE_REJECT = "rule-reject"
    BRIDGE_NF_OFF = "bridge-nf-off"
    # a node's forwarding: routes, devices, neighbours, bridges
    NO_ROUTE = "no-route"
    IP_FORWARD_OFF = "ip-forward-off"
    RP_FILTER = "rp-filter"
    MARTIAN = "martian"
    POD_ROUTE_MISSING = "pod-route-missing"
    ROUTING_LOOP = "routing-loop"
    BLACKHOLE_ROUTE = "blackhole-route"
    LINK_DOWN = "link-down"
    XDP_DROP = "xdp-drop"
    NEIGHBOUR_FAILED = "neighbour-failed"
    NEIGHBOUR_STALE = "neighbour-stale"
    MTU_EXCEEDED = "mtu-exceeded"
    HAIRPIN_OFF = "hairpin-off"
    PORT_ISOLATED = "port-isolated"
    REPLY_NOT_TRANSLATED = "reply-not-translated"
    # tunnels between the nodes
    TUNNEL_PORT_BLOCKED = "tunnel-port-blocked"
    TUNNEL_DEVICE_MISSING = "tunnel-device-missing"
    FDB_STALE = "fdb-stale"
    FDB_MISSING = "fdb-missing"
    VTEP_NEIGHBOUR_MISSING = "vtep-neighbour-missing"
    WIREGUARD_PEER_MISSING = "wireguard-peer-missing"
    # DNS
    DNS_TIMEOUT = "dns-timeout"
    DNS_UNREACHABLE = "dns-unreachable"
    DNS_REFUSED = "dns-refused"
    DNS_SERVFAIL = "dns-servfail"
    DNS_MALFORMED = "dns-malformed"
    DNS_NXDOMAIN = "dns-nxdomain"
    DNS_NO_ADDRESS = "dns-no-address"
    DNS_ADDRESS_DIFFERS = "dns-address-differs"
    DNS_SLOW = "dns-slow"
    # connections that are older than the rules
    CONNECTION_STALE = "connection-stale"
    # tables of the kernel that are full, nodes that differ
    CONNTRACK_FULL = "conntrack-full"
    CONNTRACK_INSERT_FAILED = "conntrack-insert-failed"
    NEIGHBOUR_TABLE_FULL = "neighbour-table-full"
    PROXY_MODE_MISMATCH = "proxy-mode-mismatch"
    # left open
    KERNEL_DROP = "kernel-drop"
    LOST_BETWEEN_NODES = "lost-between-nodes"
    LOST_UNEXPLAINED = "lost-unexplained"
    NOT_OBSERVED = "not-observed"
