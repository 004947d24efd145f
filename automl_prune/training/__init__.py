"""Training of dense models."""
