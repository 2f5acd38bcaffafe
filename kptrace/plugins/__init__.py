"""The registry of CNI plugins and their discovery."""
