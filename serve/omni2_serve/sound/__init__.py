"""Sound as clients send and take it: bytes ↔ float samples."""
