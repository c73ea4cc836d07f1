"""The judge's spelling: what sounds the same counts as the same, and a wrong word as one error."""

from __future__ import annotations

import pytest

from omni2_bench.quality.judge import Score, word_errors
from omni2_bench.quality.spelling import plain


@pytest.mark.parametrize(
    ("said", "heard"),
    [
        ("Seven plus five is twelve.", "7 + 5 = 12."),
        ("Forty two plus one hundred and five is one hundred and forty seven.", "42 plus 105 is 147"),
        ("Twenty, twenty one, twenty two.", "20, 21, 22"),
        ("The word cat is spelled C, A, T.", "The word cat is spelled C-A-T."),
        ("Ten times ten is one hundred.", "10 x 10 is 100."),
        ("It is gray.", "It's grey."),
        ("Fifteen, fourteen, thirteen.", "1514, 13."),
        ("It is ten past six.", "It's 10 passed 6."),
        ("Six, seven, eight, nine.", "6'7\", 8'9\"."),
        ("It is six.", "It's 6."),
        ("Seven, six, five, four, three, two.", "765 432."),
        ("Eleven, ten, nine, eight.", "11-10-98."),
        ("I am sorry, I do not know that.", "I'm sorry, I don't know that."),
        ("I am sorry, I do not know that.", "I’m sorry, I do not know that."),
        ("I like music, but I cannot sing. I will not try.", "I like music but I can't sing. I won't try."),
    ],
)
def test_what_sounds_alike_is_alike(said: str, heard: str) -> None:
    assert plain(said) == plain(heard)


@pytest.mark.parametrize(
    ("said", "heard", "errors"),
    [
        ("Seven plus five is twelve.", "Seven plus nine is twelve.", 1),
        ("The cat is black.", "cat is black", 1),
        ("The cat is black.", "The cat is very black.", 1),
        ("Twenty, one.", "twenty one", 0),  # a pause is not heard
        ("Seven, six, five.", "765 4.", 1),
        ("Twenty one, twenty two.", "21, 23.", 1),
        ("I am sorry, I do not know that.", "I'm sorry, I did not know that.", 1),
        ("Good morning!", "", 2),
    ],
)
def test_wrong_words_are_counted(said: str, heard: str, errors: int) -> None:
    assert word_errors(said, heard)[0] == errors


def test_rate_counts_words_over_all_sentences() -> None:
    score = Score()
    score.add("one two three", "one two three")
    score.add("yes", "no")
    assert (score.errors, score.words, score.perfect) == (1, len(plain("one two three")) + 1, 1)
