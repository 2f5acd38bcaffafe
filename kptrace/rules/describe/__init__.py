"""Rules in plain English. Pure."""
