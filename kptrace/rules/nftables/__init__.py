"""nftables rules: their JSON and text forms and their kernel forms."""
