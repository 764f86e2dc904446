"""Does the adversarial loss help? The thesis' protocol with several seeds, and what came out of it."""
