"""From single cars to training scenes: keying, placing, and truth that goes with the picture."""
