"""The two ways to look at a clip: appearance (what the camera sees) and gait (how the silhouette moves)."""
