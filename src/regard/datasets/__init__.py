"""Labelled data: folders of images and masks, public sets, scenes with masks or polygons."""
