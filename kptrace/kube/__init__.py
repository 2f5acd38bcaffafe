"""EDGE: the cluster: API documents, resolution, transports to an agent."""
