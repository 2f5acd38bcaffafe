"""The diagnosis where no agent could run: from API objects alone. Pure."""
