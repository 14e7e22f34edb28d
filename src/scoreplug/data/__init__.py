"""Images to train on, and to try things with."""
