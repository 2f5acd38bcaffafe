"""The catalogue of causes: stable id, meaning, impact, fix. Pure."""
