"""The voice the answers are learnt from."""
