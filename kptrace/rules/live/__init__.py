"""Rules of a live node, read over its agent chain by chain."""
