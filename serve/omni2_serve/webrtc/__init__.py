"""Realtime sessions over WebRTC: sound as Opus both ways, events over a data channel. The server plays the answers."""
