"""The viewer: a local web page with a scene, its class map, and what each pixel attends to."""
