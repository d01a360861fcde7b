"""What is left of the accuracy when images change."""
