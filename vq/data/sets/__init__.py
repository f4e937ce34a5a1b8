"""Image data sets, one file per source."""
