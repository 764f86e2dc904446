"""From annotated scenes to a data set of single cars, and the reader that trains on it."""
