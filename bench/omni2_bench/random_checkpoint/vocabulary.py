"""The vocabulary of random checkpoints, learnt from a few sentences."""

from __future__ import annotations

import re

from tokenizers import pre_tokenizers

from omni2_engine.text.tokenizer import BYTES
from omni2_export.checkpoint_writer.tokenizer import Vocabulary, train_vocabulary

SENTENCES = """
hello there and good morning to you, my friend. i am happy to help you with this question today. the answer is not
far away, so let us begin at the river and walk along the old road to the town. we can take the train from the
station near the park, or the bus that stops in front of the school. it takes about half an hour and the view is
beautiful. when you get there, ask for the market square, where people sell bread, fruit, flowers and warm tea in
the morning. the weather will be sunny in the afternoon, with a little wind from the sea, and perhaps some rain at
night. please remember to bring water, a map and a small book to read. many people think that the best time to visit
is early summer, when the garden is green and the birds sing. thank you for asking, and tell me if you want to know
more about the city, the music, the food or the history of this place. what would you like to hear about next? that
sounds great, i think so too, and here is another idea for you.
"""
MERGES = 420
SPACE = next(character for character, byte in BYTES.items() if byte == ord(" "))
WORDS = re.findall("[a-z]+", SENTENCES)


def learn_vocabulary(merges: int = MERGES) -> Vocabulary:
    """Learn from the sentences, word by word."""
    whole = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    return train_vocabulary([f" {word}" for word in WORDS], whole, merges, min_frequency=1)


def whole_words(vocabulary: Vocabulary) -> list[int]:
    """Ids of tokens that are a whole word of two letters at least: a babble is best made of them."""
    tokens = enumerate(vocabulary.tokens)
    return [i for i, token in tokens if len(token) > 2 and token[0] == SPACE and token[1:] in WORDS]
