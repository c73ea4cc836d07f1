"""Live speech measured where a client is: the real server, real sockets, recorded questions in real time."""
