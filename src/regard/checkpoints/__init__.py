"""Models on disk: making, saving, loading, and other people's files."""
