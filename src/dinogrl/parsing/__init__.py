"""Human parsers that were there before: they give silhouettes once, as masks on disk (the paper's table 7)."""

from dinogrl.parsing.masks import MaskReport, write_masks
from dinogrl.parsing.opening import PARSERS, ParserSettings, load_parser
from dinogrl.parsing.parser import HumanParser, Parsing

__all__ = ["PARSERS", "HumanParser", "MaskReport", "ParserSettings", "Parsing", "load_parser", "write_masks"]
