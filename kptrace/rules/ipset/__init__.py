"""ipsets: their text form and their kernel form."""
