"""What kube-proxy writes: chain names, expected endpoints, Services by their rules. Pure."""
