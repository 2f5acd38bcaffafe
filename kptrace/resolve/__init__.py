"""What a target means, by the API and by DNS."""
