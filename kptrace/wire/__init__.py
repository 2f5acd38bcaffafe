"""PURE: bytes: header decoding, cookie, BPF filter, pcapng."""
