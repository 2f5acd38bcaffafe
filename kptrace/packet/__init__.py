"""Bytes of packets: headers, and the id by which a probe is recognised. Pure."""
