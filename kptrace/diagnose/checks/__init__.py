"""One check a file: what could have happened to a probe. Pure."""
