"""The orchestration of a trace. Does no I/O itself."""
