"""Netlink sockets of the agent: links, conntrack, ipset, WireGuard."""
