"""Recipes: what a run is, as data."""

from dinogrl.recipes.loading import dump_recipe, load_recipe, recipe_from_values, recipe_names, recipe_summary
from dinogrl.recipes.schema import Recipe

__all__ = ["Recipe", "dump_recipe", "load_recipe", "recipe_from_values", "recipe_names", "recipe_summary"]
