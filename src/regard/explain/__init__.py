"""Explain a prediction: attention weights, object regions and channels of a pixel, a box or a class."""
