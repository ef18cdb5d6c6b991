"""Checks of the system, of data sets and of models."""
