"""OpenAI's Realtime interface (GA form) as data: events, the session, items, responses. No sockets, no engine."""
