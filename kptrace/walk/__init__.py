"""PURE: snapshots and a packet in, Prediction out: hooks, netfilter, routing, links, node to node."""
