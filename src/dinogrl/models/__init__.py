"""The network: backbones, the two streams, the enhancement between them, and what puts them together from a recipe."""
