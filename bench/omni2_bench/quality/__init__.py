"""How good a model's answers are: right words, words that can be understood, sound without seams."""
