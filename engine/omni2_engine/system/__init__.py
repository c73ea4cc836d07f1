"""What the operating system gives: files, memory, processors and processes."""
