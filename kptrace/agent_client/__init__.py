"""Our end of a conversation with an agent."""
