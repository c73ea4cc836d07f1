"""Conversations: sessions, what they share, and their answers as iterators of chunks."""
