"""What a data set holds and what is done to it, as one HTML page."""
