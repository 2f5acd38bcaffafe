"""Routing, devices and bridges, simulated. Pure."""
