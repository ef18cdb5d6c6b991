"""What is wrong with a data folder, seen before any training."""
