"""Car crops from street scenes, a ladder of GANs that learn them, and back into training scenes."""
