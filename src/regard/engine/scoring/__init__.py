"""Scores of models on labelled data, and what is suspect in the data."""
