"""Read IPVS: virtual services, servers and persistent clients."""
