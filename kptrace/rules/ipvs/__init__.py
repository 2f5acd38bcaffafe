"""IPVS: virtual services, servers and connections in their text forms. Pure."""
