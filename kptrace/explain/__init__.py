"""What one node's rules do with a Service. Pure."""
