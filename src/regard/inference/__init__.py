"""From pixels to class scores."""
