"""Training: the run, its settings and recipes, what goes wrong half-way, its record."""
