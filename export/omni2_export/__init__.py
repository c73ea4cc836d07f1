"""From checkpoint to engine directory: readers, graph builders, the build, verification."""
