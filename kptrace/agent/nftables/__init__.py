"""nf_tables over netlink: chains, sets, the trace table and its events."""
