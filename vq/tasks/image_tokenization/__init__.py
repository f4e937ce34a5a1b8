"""The tokenization of images, under the module name of the reference framework."""
