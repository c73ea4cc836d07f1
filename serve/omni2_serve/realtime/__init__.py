"""One client's Realtime session: its events in, the live conversation behind it, events out."""
