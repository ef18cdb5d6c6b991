"""A model corrected with a few labels: it relearns in seconds, and the result is an ordinary model file."""
