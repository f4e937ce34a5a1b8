"""The names of weights in other projects, one file per project, or per model that a project publishes."""
