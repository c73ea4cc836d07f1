"""A server for live speech: OpenAI's Realtime interface over WebSockets, chat completions, health and metrics."""
