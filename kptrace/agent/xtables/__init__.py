"""iptables-legacy through getsockopt, its TRACE rule and NFLOG."""
