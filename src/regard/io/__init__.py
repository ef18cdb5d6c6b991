"""Rasters, images and vectors: the only subpackage that reads and writes them."""
