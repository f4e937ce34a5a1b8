"""Images that come inside installed packages, and computed ones."""
