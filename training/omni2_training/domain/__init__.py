"""The closed domain: what the demonstration model is asked, and what it should answer.

Every kind of question draws items from a random generator; `corpus` draws them all and holds some out for testing.
"""

from omni2_training.domain.corpus import Corpus, draw_corpus
from omni2_training.domain.item import Item, Turn

__all__ = ["Corpus", "Item", "Turn", "draw_corpus"]
