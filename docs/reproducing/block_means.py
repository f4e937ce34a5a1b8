"""PSNR of pictures of a few blocks, each with its mean colour: what a tokenizer with as many tokens should beat.

python docs/reproducing/block_means.py
python docs/reproducing/block_means.py --size 32 --block 4 8
"""

import argparse
import sys

import torch
import torch.nn.functional as F

from vq.data import EmojiDataset, ImageLoader, Resize


def main() -> None:
    """Prints the mean over the images."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--size", type=int, default=64, help="of the images")
    parser.add_argument("--block", type=int, nargs=2, default=(8, 16), metavar=("HEIGHT", "WIDTH"))
    given = parser.parse_args()
    loader = ImageLoader(
        dataset=EmojiDataset(split="val"),
        transforms=[Resize(size=given.size)],
        batch_size=64,
        shuffle=False,
    )
    found = []
    for batch in loader.pass_batches():
        image = batch["image"].double() / 255
        means = F.avg_pool2d(image, given.block)
        blocks = means.repeat_interleave(given.block[0], 2).repeat_interleave(given.block[1], 3)
        found.append(-10 * (blocks - image).square().mean(dim=(1, 2, 3)).log10())
    blocks = given.size * given.size // (given.block[0] * given.block[1])
    sys.stdout.write(f"{blocks} blocks, {given.size} px: PSNR {torch.cat(found).mean():.2f} dB\n")


if __name__ == "__main__":
    main()
