"""Agents as pods and ephemeral containers: manifests, life cycle, clean-up."""
