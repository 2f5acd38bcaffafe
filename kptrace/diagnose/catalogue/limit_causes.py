"""Causes that no single packet shows: tables of the kernel that are full, nodes that differ. Pure;
see causes.py. ``kptrace check`` names them.
"""

from __future__ import annotations

from kptrace.diagnose.catalogue.cause import catalogue

LIMITS = catalogue(
    (
        "conntrack-full",
        "the conntrack table is or was full",
        "nf_conntrack_count has reached nf_conntrack_max, or the kernel counted packets that it "
        "dropped for want of room: new connections are dropped, those that are known go on",
        "new connections of all kinds time out at random on this node, worst under load",
        "raise net.netfilter.nf_conntrack_max (kube-proxy: conntrack.maxPerCore), and look with "
        "conntrack -L who holds so many",
    ),
    (
        "conntrack-insert-failed",
        "conntrack could not insert connections",
        "two packets of one flow raced, or no source port was left for SNAT: the kernel dropped "
        "the one that came second (insert_failed of conntrack -S, counted since boot)",
        "single packets are lost, most often one of the two questions of a DNS lookup, which then "
        "takes 5 s",
        "let MASQUERADE take random ports (--random-fully), use NodeLocal DNS, or ask over TCP",
    ),
    (
        "neighbour-table-full",
        "the neighbour table is nearly full",
        "the node has nearly as many neighbour entries as gc_thresh3 allows; with more of them "
        "the kernel drops packets for addresses that it has to ask for (neighbour: table overflow)",
        "pods and nodes that were not spoken to lately cannot be reached from this node",
        "raise net.ipv4.neigh.default.gc_thresh1, 2 and 3",
    ),
    (
        "proxy-mode-mismatch",
        "nodes translate Services in different ways",
        "kube-proxy runs in different modes on different nodes, or on one of them nothing "
        "translates at all: a change of its mode did not reach every node",
        "the same Service behaves differently from node to node",
        "give all nodes the same kube-proxy configuration; clear the old rules where the mode "
        "changed",
    ),
)
