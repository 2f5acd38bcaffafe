"""EDGE: a cluster of network namespaces on one kernel, and faults to put into it."""
