"""Live conversations: sound as it is spoken, turn detection, answers that are ready early, interruption."""
