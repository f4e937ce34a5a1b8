"""ImageNet-1k."""

import os
from functools import cached_property
from pathlib import Path

import numpy as np

from vq.data.base import DataError
from vq.data.decode import ImageDecoder
from vq.data.sets.image_folder import ImageFolder
from vq.data.sets.listed import ListedImages, Listing, as_text, data_folder
from vq.data.sets.published import imagenet_labels as labels
from vq.data.sets.published.agreement import check_same_images
from vq.registry import DATASETS
from vq.text import printable, shown


@DATASETS.register_module()
class ImageNet(ListedImages):
    """Reads ImageNet-1k from any of the layouts in which it is used, with the same labels and keys in each.

    Labels, 0..999, are the numbers of the sorted WordNet IDs, as in all published classifiers. Keys are
    `WNID/NAME.JPEG`, in sorted order. A folder with fewer classes (such as ImageNet-100) can be used too; its labels
    are the numbers of its own classes, and `val` may have no class that `train` lacks. The layouts are:

    * **Sorted**: `root/{train,val}/WNID/*.JPEG`.
    * **Official archive, Kaggle**: `root/ILSVRC/{Data,Annotations,ImageSets}`, where `Data/CLS-LOC/train` has class
      folders and `Data/CLS-LOC/val` has none. The classes of `val` come from `root/LOC_val_solution.csv` if it exists,
      else from the XML files in `Annotations/CLS-LOC/val`. The images of `test` have no labels and are not read.
    * **Devkit**: `root/train/WNID/*.JPEG` and the validation images directly in `root/val`. Their classes come from
      `root/ILSVRC2012_devkit_t12/data`: `ILSVRC2012_validation_ground_truth.txt` and `meta.mat` (SciPy reads it).
    * **Lines**: the same, with the classes in `root/imagenet_2012_validation_synset_labels.txt`, one WordNet ID per
      line.
    * **Reference framework**: `root/{train,val}/WNID/NUMBER.JPEG`, with `root/annotations/{train,val}.json` and
      `root/synsets.json`, which must list the same images. Its own labels follow the devkit's numbers and therefore
      differ; here they follow the WordNet IDs.

    A label file must list exactly the images that exist. The layouts are known from their documentation, and are tested
    on small copies.

    Source: Deng et al. 2009 and Russakovsky et al. 2015, https://arxiv.org/abs/1409.0575; available from
        https://image-net.org for non-commercial research and education. The split is the official one.

    Args:
        root: The folder that contains one of these layouts; by default `$VQ_DATA/imagenet`, or `data/imagenet`. It is
            accessed at the first use.
        split: `"train"` (1,281,167 images) or `"val"` (50,000 images).

    Raises:
        DataError: If the split is unknown; at the first use, if the folder is missing or has another layout, or its
            label file does not agree with it.
        MissingPackageError: At the first use, if `meta.mat` is needed and SciPy is not installed.
    """

    def __init__(self, *, root: str | Path | None = None, split: str = "train") -> None:
        if split not in ("train", "val"):
            raise DataError(f"ImageNet: expected split 'train' or 'val', got {split!r}")
        super().__init__(data_folder(root, "imagenet"), ImageDecoder(place="ImageNet"))
        self.split = split

    def path(self, index: int) -> Path:
        """Returns the path of image `index`."""
        return self._images / os.fsdecode(self.listing.paths[index].item())

    def key(self, index: int) -> str:
        """Returns the name of image `index` with its class, such as `n01440764/n01440764_10026.JPEG`."""
        path = as_text(self.listing.paths[index].item())
        return path if "/" in path else f"{self.class_names[self.label(index)]}/{path}"

    @cached_property
    def _images(self) -> Path:
        """The folder of the images of the split."""
        folder = _folder_of(self.root, self.split)
        if folder is None:
            root = printable(str(self.root))
            raise DataError(
                f"ImageNet: expected {root}/{self.split}/n01440764/*.JPEG and so on, or "
                f"{root}/ILSVRC/Data/CLS-LOC/{self.split}, found no folder {root}/{self.split}; "
                "get ImageNet from https://image-net.org, unpack it there, or set `root`"
            )
        return folder

    def _list(self) -> Listing:
        found = ImageFolder(root=self._images, extensions=(".jpeg", ".jpg")).listing
        flat = [as_text(path.item()) for path in found.paths if b"/" not in path.item()]
        if not flat:
            wnids = list(found.class_names)
            classes = self._classes(wnids)
            self._check_reference(found)
            number = np.array([classes.index(wnid) for wnid in wnids], dtype=np.int32)
            return Listing(found.paths, number[found.labels], classes)
        can_be_flat = self.split == "val" and len(flat) == len(found.paths)
        wnid_of_each = labels.validation_wnids(self.root, flat) if can_be_flat else None
        if wnid_of_each is None:
            raise self._unsorted(flat[0])
        classes = self._classes(sorted(set(wnid_of_each)))
        number_of = {wnid: number for number, wnid in enumerate(classes)}
        number = np.array([number_of[wnid] for wnid in wnid_of_each], dtype=np.int32)
        order = np.argsort(number, kind="stable")  # the paths are sorted already
        return Listing(found.paths[order], number[order], classes)

    def _classes(self, wnids: list[str]) -> tuple[str, ...]:
        """Returns the classes that give the labels: those of `train`, if there is one, also for `val`."""
        for name in wnids:
            if not labels.is_wnid(name):
                raise self._unsorted(name)
        folder = _folder_of(self.root, "train") if self.split == "val" else None
        in_train = [] if folder is None else sorted(filter(labels.is_wnid, os.listdir(folder)))
        if not in_train:
            return tuple(wnids)
        if lacking := sorted(set(wnids) - set(in_train)):
            raise DataError(
                f"ImageNet: expected the classes of {printable(str(self._images))} to be among the {len(in_train):,} "
                f"of {printable(str(folder))}, but {len(lacking):,} are not, such as {lacking[0]}, so that the "
                "labels of the two would differ; give both the same classes, or put `val` alone below another `root`"
            )
        return tuple(in_train)

    def _check_reference(self, found: Listing) -> None:
        listed = labels.reference_images(self.root, self.split)
        if listed is not None:
            file = self.root / "annotations" / f"{self.split}.json"
            names = (as_text(path.item()) for path in found.paths)
            check_same_images("ImageNet", file, listed=listed, found=names)

    def _unsorted(self, name: str) -> DataError:
        folder = printable(str(self._images))
        or_labels = f", or put their label file into {printable(str(self.root))}: {labels.LABEL_FILES}"
        return DataError(
            f"ImageNet: expected {folder}/n01440764/*.JPEG and so on, but {shown(name)} in {folder} is not in a folder "
            f"named like n01440764; sort the images into one folder per class"
            f"{or_labels if self.split == 'val' else ', or use ImageFolder'}"
        )


def _folder_of(root: Path, split: str) -> Path | None:
    """Returns the folder of the images of a split, or None if there is none."""
    places = (root / split, root / "ILSVRC/Data/CLS-LOC" / split, root / "Data/CLS-LOC" / split)
    return next((place for place in places if place.is_dir()), None)
