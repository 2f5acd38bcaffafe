"""What reports a packet: taps, receive time stamps, drops."""
