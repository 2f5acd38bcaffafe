"""PURE: snapshots and a packet in, Prediction out: hooks, routing, links, node to node."""
