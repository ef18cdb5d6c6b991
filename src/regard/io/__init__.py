"""Rasters, images and vectors: the only room that reads and writes them."""
