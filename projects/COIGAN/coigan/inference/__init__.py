"""A trained generator at work: on images of any size, for scores, and for new data sets."""
