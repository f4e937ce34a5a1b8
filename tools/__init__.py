"""Commands around the framework: `python tools/NAME.py` or `python -m tools.NAME`."""
