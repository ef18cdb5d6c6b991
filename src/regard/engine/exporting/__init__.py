"""A model for other runtimes, and in eight bits."""
