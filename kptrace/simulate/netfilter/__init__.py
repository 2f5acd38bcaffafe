"""Hooks, rules, NAT, conntrack and IPVS, simulated. Pure."""
