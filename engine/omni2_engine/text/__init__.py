"""Text on both ends of the language models: ids ↔ text, chat templates, and units from generated ids."""

from omni2_engine.text.template import ChatTemplate
from omni2_engine.text.tokenizer import TextStream, TextTokenizer
from omni2_engine.text.units import UnitStream, UnitTable

__all__ = ["ChatTemplate", "TextStream", "TextTokenizer", "UnitStream", "UnitTable"]
