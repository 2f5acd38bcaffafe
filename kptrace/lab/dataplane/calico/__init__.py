"""What Calico leaves on a node."""
