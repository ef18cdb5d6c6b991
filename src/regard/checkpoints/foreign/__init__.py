"""Checkpoints of other code bases, one file each."""
