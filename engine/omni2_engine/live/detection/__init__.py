"""Where people begin and stop to speak: interfaces, and an implementation of each in a file of its own."""
