"""`omni2-engine bench serve`: people who talk to a Realtime server, more and more of them."""
