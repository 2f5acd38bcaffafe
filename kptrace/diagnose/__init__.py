"""Evidence of a probe in; hops, outcome and findings out. Pure."""
