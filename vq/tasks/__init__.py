"""Commands under the module names of the reference framework."""
