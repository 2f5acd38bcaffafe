"""VXLAN, IPIP, Geneve, GRE and WireGuard, simulated. Pure."""
