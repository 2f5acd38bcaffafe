"""iptables rules: their text forms and their kernel forms."""
