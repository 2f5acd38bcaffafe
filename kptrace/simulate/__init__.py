"""The kernel on paper: snapshots and a packet in, a Prediction out. Pure."""
