"""What kube-proxy writes: chain names, expected endpoints, Services found by their rules."""
