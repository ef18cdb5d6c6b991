"""What a pixel attended to, and pictures of it."""
