"""The names of weights in other projects, one file per project."""
