"""The files of a snapshot or a saved run: read, collected, archived."""
