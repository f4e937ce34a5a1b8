"""`vq weights`, under the name that the original documents give it."""

from vq import cli
from vq.weights import main

if __name__ == "__main__":
    cli.main(main)
