"""Finite scalar quantization with 8 x 5 x 5 x 5 = 1000 codes on images in WebDataset tars, f8, 64 px; docs/data.md.

Images of any size are resized and cropped; a tenth of them is set aside for validation, unless there are `val_shards`.

Paper:    Mentzer et al. 2024, https://arxiv.org/abs/2309.15505
Command:  vq train shards fsq/1000_webdataset --config-options 'shards::my_shards/{0000..0127}.tar'
          (the page is configs/fsq/1000_webdataset.py)
Expected: PSNR 23.28 dB, SSIM 0.631, LPIPS-vgg 0.508, codebook usage 56 %
          (measured here: 1,000 steps, seed 3407, on the crops of PhotoDataset in 25 tars that are written as in
           docs/data.md, with those of its validation split as val_shards)
Needs:    WebDataset tars with a member .cls in each sample (or --config-options label:None), on disk or at an address
"""

_base_ = "1000_emoji.py"

from vq.data import CenterCrop, RandomCrop, RandomHorizontalFlip, Resize, WebDataset

options = dict(
    shards="shards/*.tar",  # paths or addresses; braces and * stand for several
    val_shards=None,  # tars that hold the validation images, if they are not among `shards`
    val_fraction=0.1,  # of the images of `shards`, without `val_shards`
    label="cls",  # what holds the class of an image; None if the images have no classes
    cache_folder=None,  # where shards behind an address are copied to; None reads each image when it is needed
    image_size=64,  # a multiple of 8
    max_undecodable=0.2,  # broken images are counted and left out, up to this fraction
    num_workers=2,  # processes that read images
)
image_size = options["image_size"]
images = dict(
    type=WebDataset,
    val_fraction=options["val_fraction"],
    label=options["label"],
    cache_folder=options["cache_folder"],
)
reading = dict(num_workers=options["num_workers"], max_undecodable=options["max_undecodable"])
splits = ("train", "val") if options["val_shards"] is None else ("all", "all")

train_data = dict(
    dataset=dict(shards=options["shards"], split=splits[0], **images),
    transforms=[
        dict(type=Resize, size=image_size * 5 // 4),
        dict(type=RandomCrop, size=image_size),
        dict(type=RandomHorizontalFlip),
    ],
    **reading,
)
val_data = dict(
    dataset=dict(shards=options["val_shards"] or options["shards"], split=splits[1], **images),
    transforms=[dict(type=Resize, size=image_size), dict(type=CenterCrop, size=image_size)],
    **reading,
)
