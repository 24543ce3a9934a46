"""DinoGRL: the same person, across day and night cameras."""

from dinogrl.recipes import Recipe, load_recipe

__version__ = "0.1.0"
__all__ = ["Recipe", "load_recipe"]
