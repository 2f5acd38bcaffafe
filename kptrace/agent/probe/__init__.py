"""What sends: the probe, the preflight probe, DNS queries."""
