"""FID and KID of painted images, during training and after it."""
