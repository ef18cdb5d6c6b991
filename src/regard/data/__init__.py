"""Images, masks and rasters, read from disk as they are."""
