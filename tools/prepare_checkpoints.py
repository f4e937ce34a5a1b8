"""`vq weights`, under the name that the original documents give it."""

from vq import cli
from vq.weights import arguments, main

__all__ = ["arguments", "main"]

if __name__ == "__main__":
    cli.main(main)
