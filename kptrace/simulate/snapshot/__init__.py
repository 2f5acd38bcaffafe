"""The state of one network namespace, parsed. Pure."""
