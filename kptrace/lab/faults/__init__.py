"""Faults to put into a lab, and how each is undone."""
