"""gan_plugin's trainer with what a study adds: validation loss, early stopping, freezing, cropping, head remapping."""
