"""Networks: images to features and back, one file an architecture; and frozen feature networks."""
