"""The API server: credentials, requests, exec streams."""
