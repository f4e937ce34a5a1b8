"""Mathematical functions of tensors, one formula each; import them from the modules in this package."""
