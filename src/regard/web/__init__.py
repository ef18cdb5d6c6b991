"""The viewer: a local web page that shows a scene, its class map, and what the model looked at."""
