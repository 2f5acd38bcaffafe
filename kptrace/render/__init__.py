"""PURE: Report -> text, JSON, YAML, JUnit."""
