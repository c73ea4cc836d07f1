"""`POST /v1/chat/completions`: one question, spoken or typed, and its answer; for clients that do not talk live."""
