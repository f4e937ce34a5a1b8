"""Finite scalar quantization with 8 x 5 x 5 x 5 = 1000 codes on a data set of the Hugging Face hub, f8, 64 px.

`name` is a data set on the hub, or a folder that `datasets` reads, such as one of Parquet files; docs/data.md. A tenth
of the images is set aside for validation.

Paper:    Mentzer et al. 2024, https://arxiv.org/abs/2309.15505
Command:  vq train cifar10 fsq/1000_hugging_face --config-options name::uoft-cs/cifar10 image::img
          (the page is configs/fsq/1000_hugging_face.py)
Expected: not yet run
Needs:    pip install -e '.[data]'; for a data set on the hub, a network at the first run
"""

_base_ = "1000_emoji.py"

from vq.data import CenterCrop, HashSplit, HuggingFaceDataset, RandomCrop, RandomHorizontalFlip, Resize

options = dict(
    name="my_dataset",
    config=None,  # the name of a configuration, if the data set has several
    split="train",
    streaming=False,  # True reads Parquet files in place instead of downloading the split
    image="image",  # the column of the images
    label="label",  # the column of the classes; None if there is none
    val_fraction=0.1,
    num_workers=2,  # processes that read images
)
images = dict(
    type=HuggingFaceDataset,
    name=options["name"],
    config=options["config"],
    split=options["split"],
    streaming=options["streaming"],
    image=options["image"],
    label=options["label"],
)
division = dict(type=HashSplit, dataset=images, val_fraction=options["val_fraction"])

train_data = dict(
    dataset=dict(split="train", **division),
    transforms=[dict(type=Resize, size=80), dict(type=RandomCrop, size=64), dict(type=RandomHorizontalFlip)],
    num_workers=options["num_workers"],
)
val_data = dict(
    dataset=dict(split="val", **division),
    transforms=[dict(type=Resize, size=64), dict(type=CenterCrop, size=64)],
    num_workers=options["num_workers"],
)
