"""Explain rules in plain English."""
