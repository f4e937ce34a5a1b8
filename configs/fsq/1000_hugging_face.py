"""Finite scalar quantization with 8 x 5 x 5 x 5 = 1000 codes on a data set of the Hugging Face hub, f8, 64 px.

`name` is a data set on the hub, or a folder that `datasets` reads, such as one of Parquet files; docs/data.md. A tenth
of the images is set aside for validation, unless there is a `val_split`.

Paper:    Mentzer et al. 2024, https://arxiv.org/abs/2309.15505
Command:  vq train cifar10 fsq/1000_hugging_face --config-options name::uoft-cs/cifar10 image::img
          (the page is configs/fsq/1000_hugging_face.py)
Expected: CIFAR-10: not yet run. 210 tiles of the embedded photographs, 128 px, streamed from Parquet: PSNR 21.21 dB,
          SSIM 0.451, LPIPS-vgg 0.557, codebook usage 30 % (measured here: 300 steps, seed 3407, 26 validation tiles)
Needs:    pip install -e '.[data]'; for a data set on the hub, a network at the first run
"""

_base_ = "1000_emoji.py"

from vq.data import CenterCrop, HashSplit, HuggingFaceDataset, RandomCrop, RandomHorizontalFlip, Resize

options = dict(
    name="my_dataset",
    config=None,  # the name of a configuration, if the data set has several
    split="train",
    val_split=None,  # the split with the validation images; None takes some of `split`
    val_fraction=0.1,  # of the images of `split`, without `val_split`
    streaming=False,  # True reads Parquet files in place instead of downloading the split
    image="image",  # the column of the images
    label="label",  # the column of the classes; None if the images have no classes
    image_size=64,  # a multiple of 8
    max_undecodable=0.2,  # broken images are counted and left out, up to this fraction
    num_workers=2,  # processes that read images
)
image_size = options["image_size"]
images = dict(
    type=HuggingFaceDataset,
    name=options["name"],
    config=options["config"],
    streaming=options["streaming"],
    image=options["image"],
    label=options["label"],
)
split = dict(split=options["split"], **images)
val_split = dict(split=options["val_split"], **images)
divided = dict(type=HashSplit, dataset=split, val_fraction=options["val_fraction"])
reading = dict(num_workers=options["num_workers"], max_undecodable=options["max_undecodable"])

train_data = dict(
    dataset=split if options["val_split"] else dict(split="train", **divided),
    transforms=[
        dict(type=Resize, size=image_size * 5 // 4),
        dict(type=RandomCrop, size=image_size),
        dict(type=RandomHorizontalFlip),
    ],
    **reading,
)
val_data = dict(
    dataset=val_split if options["val_split"] else dict(split="val", **divided),
    transforms=[dict(type=Resize, size=image_size), dict(type=CenterCrop, size=image_size)],
    **reading,
)
