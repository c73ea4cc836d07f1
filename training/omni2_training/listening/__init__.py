"""Questions as the model hears them: voices, noise, and the frozen speech encoder."""
