"""What Cilium leaves on a node."""
