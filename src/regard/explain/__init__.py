"""What a pixel, a box or a class attended to."""
