"""Audio in and out: any recording to a 16 kHz waveform, the answer to a file or a pipe."""
