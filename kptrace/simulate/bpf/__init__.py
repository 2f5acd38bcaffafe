"""BPF programs on the way of a packet, simulated. Pure."""
