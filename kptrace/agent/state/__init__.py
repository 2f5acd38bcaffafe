"""The files and rules of a node, read when they are asked for."""
