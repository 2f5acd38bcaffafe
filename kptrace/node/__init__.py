"""EDGE: one node: namespaces, netlink, capture, rule trace, drops, probes. It decides nothing."""
