"""What the features of a network are worth without its head."""
