"""DinoGRL: the same person, across day and night cameras."""

from typing import TYPE_CHECKING, Any

from dinogrl.recipes import Recipe, load_recipe

if TYPE_CHECKING:
    from dinogrl.embedding.embedder import Embedder
    from dinogrl.gallery import Gallery
    from dinogrl.models.build import build_model

__version__ = "0.1.0"
__all__ = ["Embedder", "Gallery", "Recipe", "build_model", "load_recipe"]


def __getattr__(name: str) -> Any:
    """Some names are imported when first asked for: they bring torch, and the command line need not wait."""
    if name == "Embedder":
        from dinogrl.embedding.embedder import Embedder

        return Embedder
    if name == "Gallery":
        from dinogrl.gallery import Gallery

        return Gallery
    if name == "build_model":
        from dinogrl.models.build import build_model

        return build_model
    raise AttributeError(f"module 'dinogrl' has no attribute {name!r}")
