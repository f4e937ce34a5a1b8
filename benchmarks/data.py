"""How fast images are read from JPEG files: `python benchmarks/data.py [--parts ...] [--out FILE]`.

The files are made from the photographs of scikit-image and scikit-learn, 256 x 256 and 500 x 375 pixels, two crops of
each, at quality 90. Both sides of a comparison run in turn on one core, and medians are compared. Times are those on
the CPU, because other programs disturb them less; only the loader with workers is timed by the clock.

* `decoders`: milliseconds to decode a file that is in memory, and the share of pixels within one level of Pillow's.
  Packages that are not installed are left out (`pip install PyTurboJPEG`, which needs the library libjpeg-turbo).
* `pipelines`: `ImageLoader` against torchvision's `ImageFolder` with Pillow (its transforms end with `ToTensor`), and
  against `ImageFolder` with torchvision's own decoder and its transforms of tensors, which are those of `vq`.
  `pillow_uint8_ratio` is against Pillow with `PILToTensor`, which leaves the division by 255 to the device as
  `ImageLoader` does; it has no bar. Bars: at least 2.0 times Pillow's throughput, at least 0.95 of torchvision's.
* `workers`: the same for the training transforms with one worker process on either side, by the clock and without the
  start of the worker. It has no bar.
* `scaled`: what decoding at a lower resolution gains for a file of 1024 x 768 pixels and a target of 128, and the
  smallest PSNR against full decoding and resizing, over all photographs and scales, with the margin that `vq` keeps
  and with others. Bar: above 40 dB.
* `loader`: what two workers add to a loop whose step takes 50 ms, over five epochs without the first batch, whose
  latency is given separately. Bar: less than 3 %.

The allocator of the C library keeps freed memory here, on both sides: otherwise page faults, which depend on the
history of the process, would cost Pillow's side up to its own time again.
"""

import argparse
import io
import json
import math
import os
import platform
import statistics
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import date
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, RandomSampler
from torchvision.transforms import InterpolationMode, v2

import vq.data as ours
from vq.data import ImageFolder, ImageLoader, PhotoDataset, jpeg
from vq.data.decode import ImageDecoder

BARS = {"pillow": 2.0, "torchvision": 0.95, "scaled_psnr": 40.0, "loader": 0.03}
SIZES = {"256": (256, 256), "500": (500, 375), "1024": (1024, 768)}  # width and height of the files
TARGET = 256
BATCH, COPIES = 28, 4  # an epoch has a batch of each copy
KEEPS_MEMORY = {"MALLOC_MMAP_THRESHOLD_": "1000000000", "MALLOC_TRIM_THRESHOLD_": "4000000000"}
Figures = dict[str, Any]


def photographs() -> list[Image.Image]:
    """All photographs in full, as the packages store them."""
    return [Image.open(path).convert("RGB") for _, path in PhotoDataset(split="all")._photos]


def encoded(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=90)
    return buffer.getvalue()


def write_files(folder: Path, side: str) -> list[bytes]:
    """Writes two crops of each photograph, resized to the size of the files."""
    width, height = SIZES[side]
    (folder / side / "photographs").mkdir(parents=True)
    contents = []
    for number, photo in enumerate(photographs()):
        scale = min(photo.width / width, photo.height / height)
        for share in (1.0, 0.8):
            w, h = int(width * scale * share), int(height * scale * share)
            left, top = (photo.width - w) // 2, (photo.height - h) // 2
            crop = photo.crop((left, top, left + w, top + h)).resize(
                (width, height), Image.Resampling.LANCZOS
            )
            contents.append(encoded(crop))
            for copy in range(COPIES):
                name = f"{copy}_{number:02d}_{share}.jpg"
                (folder / side / "photographs" / name).write_bytes(contents[-1])
    return contents


def medians(sides: dict[str, Callable[[], object]], repeats: int) -> dict[str, float]:
    """Runs all sides in turn, and returns the median seconds on the CPU of each; the first two turns warm up."""
    times: dict[str, list[float]] = {name: [] for name in sides}
    for turn in range(repeats + 2):
        for name, run in sides.items():
            start = time.process_time()
            run()
            if turn >= 2:
                times[name].append(time.process_time() - start)
    return {name: statistics.median(values) for name, values in times.items()}


def by_pillow(data: bytes) -> Any:
    with Image.open(io.BytesIO(data)) as image:
        return np.array(image.convert("RGB"))


def decoders() -> dict[str, Callable[[bytes], Any]]:
    """Functions from the content of a file to an array or tensor."""
    found: dict[str, Callable[[bytes], Any]] = {"Pillow": by_pillow}
    with suppress(ImportError):
        import simplejpeg

        found["simplejpeg"] = lambda data: simplejpeg.decode_jpeg(data, "RGB")
    decoder = ImageDecoder()
    found["vq (simplejpeg, header checked)"] = lambda data: decoder.decode(data, "").permute(1, 2, 0)
    mode = torchvision.io.ImageReadMode.RGB
    found["torchvision"] = lambda data: torchvision.io.decode_jpeg(
        torch.frombuffer(bytearray(data), dtype=torch.uint8), mode=mode
    ).permute(1, 2, 0)
    with suppress(ImportError, OSError, RuntimeError):
        import turbojpeg

        library = turbojpeg.TurboJPEG()
        found["PyTurboJPEG"] = lambda data: library.decode(data, pixel_format=turbojpeg.TJPF_RGB)
    with suppress(ImportError):
        import cv2

        cv2.setNumThreads(1)
        found["OpenCV"] = lambda data: cv2.cvtColor(
            cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB
        )
    return found


def decode_all(decode: Callable[[bytes], Any], contents: list[bytes]) -> None:
    for data in contents:
        decode(data)


def measure_decoders(files: dict[str, list[bytes]], repeats: int) -> Figures:
    figures: Figures = {}
    for side in ("256", "500"):
        contents = files[side]
        expected = [by_pillow(data).astype(int) for data in contents]
        found = decoders()
        times = medians({name: partial(decode_all, f, contents) for name, f in found.items()}, repeats)
        for name, decode in found.items():
            near = [
                (np.abs(np.asarray(decode(data)) - e) <= 1).mean()
                for data, e in zip(contents, expected, strict=True)
            ]
            figures[f"{side} px, {name}"] = {
                "ms": 1000 * times[name] / len(contents),
                "times_pillow": times["Pillow"] / times[name],
                "within_one_level": float(np.mean(near)),
            }
    return figures


def transforms(kind: str) -> tuple[list[Any], list[Any]]:
    """The transforms of torchvision and of `vq`; the former take images of Pillow and tensors."""
    bicubic = {"interpolation": InterpolationMode.BICUBIC, "antialias": True}
    if kind == "evaluation":
        return (
            [v2.Resize(TARGET, **bicubic), v2.CenterCrop(TARGET)],
            [ours.Resize(size=TARGET), ours.CenterCrop(size=TARGET)],
        )
    if kind == "training":
        return (
            [v2.Resize(TARGET, **bicubic), v2.RandomCrop(TARGET), v2.RandomHorizontalFlip()],
            [ours.Resize(size=TARGET), ours.RandomCrop(size=TARGET), ours.RandomHorizontalFlip()],
        )
    return (
        [v2.RandomResizedCrop(TARGET, **bicubic), v2.RandomHorizontalFlip()],
        [ours.RandomResizedCrop(size=TARGET), ours.RandomHorizontalFlip()],
    )


def epoch_of_torchvision(folder: Path, steps: Sequence[Any], **reading: Any) -> Callable[[], object]:
    files = torchvision.datasets.ImageFolder(str(folder), v2.Compose(steps), **reading)
    loader = DataLoader(files, batch_size=BATCH, pin_memory=False)
    return lambda: read(iter(loader))


def epoch_of_vq(folder: Path, steps: Sequence[Any], *, is_training: bool) -> Callable[[], object]:
    loader = ImageLoader(dataset=ImageFolder(root=folder), transforms=steps, batch_size=BATCH)
    return lambda: read(loader.train_batches(seed=0) if is_training else loader.pass_batches())


def read(batches: Iterator[Any]) -> None:
    """Reads an epoch; no batch is kept."""
    for _ in range(COPIES):
        next(batches)


def read_with_torchvision(path: str) -> Tensor:
    return torchvision.io.decode_jpeg(torchvision.io.read_file(path), mode=torchvision.io.ImageReadMode.RGB)


def measure_pipelines(folder: Path, repeats: int) -> Figures:
    figures: Figures = {}
    to_tensor = torchvision.transforms.ToTensor()
    for side in ("256", "500"):
        for kind in ("evaluation", "training", "training, RandomResizedCrop"):
            theirs, steps = transforms(kind)
            times = medians(
                {
                    "vq": epoch_of_vq(folder / side, steps, is_training=kind != "evaluation"),
                    "pillow": epoch_of_torchvision(folder / side, [*theirs, to_tensor]),
                    "pillow_uint8": epoch_of_torchvision(folder / side, [*theirs, v2.PILToTensor()]),
                    "torchvision": epoch_of_torchvision(folder / side, theirs, loader=read_with_torchvision),
                },
                repeats,
            )
            row = {f"{name}_ms": 1000 * seconds / (BATCH * COPIES) for name, seconds in times.items()}
            row |= {f"{name}_ratio": times[name] / times["vq"] for name in times if name != "vq"}
            figures[f"{side} px, {kind}"] = row
    return figures


def psnr(one: Tensor, other: Tensor) -> float:
    return 10 * math.log10(255**2 / float((one.float() - other.float()).square().mean()))


def lowest_psnr(margin: float) -> float:
    """The smallest PSNR of scaled decoding, when the decoded shorter side is `margin` times the target."""
    import simplejpeg

    lowest, unused = math.inf, torch.Generator()
    for photo in photographs():
        width, height = photo.width // 16 * 16, photo.height // 16 * 16
        data = encoded(photo.crop((0, 0, width, height)))
        full = torch.from_numpy(simplejpeg.decode_jpeg(data)).permute(2, 0, 1)
        for denominator in (2, 4, 8):
            size = {"min_height": height // denominator, "min_width": width // denominator}
            scaled = torch.from_numpy(simplejpeg.decode_jpeg(data, **size)).permute(2, 0, 1)
            resize = ours.Resize(size=int(min(size.values()) / margin))
            lowest = min(lowest, psnr(resize(scaled, unused), resize(full, unused)))
    return lowest


def measure_scaled(files: dict[str, list[bytes]], repeats: int) -> Figures:
    contents, resize, unused = files["1024"], ours.Resize(size=128), torch.Generator()

    def run(min_side: int | None) -> None:
        for data in contents:
            pixels = jpeg.decode(data, channels=3, max_pixels=2**26, min_side=min_side)
            if pixels is None:
                raise RuntimeError("a photograph is left to Pillow")
            resize(pixels, unused)

    times = medians({"full": lambda: run(None), "scaled": lambda: run(128)}, repeats)
    return {
        "full_ms": 1000 * times["full"] / len(contents),
        "scaled_ms": 1000 * times["scaled"] / len(contents),
        "ratio": times["full"] / times["scaled"],
        "margin": jpeg.MARGIN,
        "lowest_psnr": lowest_psnr(jpeg.MARGIN),
        "lowest_psnr_of_other_margins": {
            str(margin): lowest_psnr(margin) for margin in (1.0, 1.5, 1.75, 3.0)
        },
    }


def measure_workers(folder: Path, repeats: int) -> Figures:
    """Times training batches of one worker by the clock, without those that it prepared before."""
    figures: Figures = {}
    for side in ("256", "500"):
        theirs, steps = transforms("training")
        files = torchvision.datasets.ImageFolder(
            str(folder / side), v2.Compose([*theirs, torchvision.transforms.ToTensor()])
        )
        endless = RandomSampler(files, replacement=True, num_samples=10**7)
        pillow = DataLoader(files, batch_size=BATCH, sampler=endless, num_workers=1, pin_memory=False)
        loader = ImageLoader(
            dataset=ImageFolder(root=folder / side), transforms=steps, batch_size=BATCH, num_workers=1
        )
        sides = {"vq": loader.train_batches(seed=0), "pillow": iter(pillow)}
        times: dict[str, list[float]] = {name: [] for name in sides}
        for _ in range(repeats):
            for name, batches in sides.items():
                for _ in range(3):
                    next(batches)
                start = time.perf_counter()
                read(batches)
                times[name].append((time.perf_counter() - start) / (BATCH * COPIES))
        row = {f"{name}_ms": 1000 * statistics.median(values) for name, values in times.items()}
        figures[f"{side} px, one worker"] = row | {"pillow_ratio": row["pillow_ms"] / row["vq_ms"]}
    return figures


def measure_loader(folder: Path, *, step: float = 0.05, epochs: int = 5, repeats: int = 5) -> Figures:
    """Times a loop of steps that sleep, with the batches of two workers and without any."""
    _, steps = transforms("training")
    loader = ImageLoader(
        dataset=ImageFolder(root=folder / "256"), transforms=steps, batch_size=BATCH // 2, num_workers=2
    )
    num_steps = epochs * (len(loader.dataset) // loader.batch_size)
    added, first, waits, longest, on_cpu = [], [], [], [], []
    for _ in range(repeats):
        start = time.perf_counter()
        for _ in range(num_steps):
            time.sleep(step)
        alone = time.perf_counter() - start
        start = time.perf_counter()
        batches = loader.train_batches(seed=0)
        next(batches)
        first.append(time.perf_counter() - start)
        turn, cpu, wait = [], time.thread_time(), time.perf_counter()
        start = wait
        for _ in range(num_steps):
            time.sleep(step)
            wait = time.perf_counter()
            next(batches)
            turn.append(time.perf_counter() - wait)
        added.append((time.perf_counter() - start) / alone - 1)
        on_cpu.append((time.thread_time() - cpu) / num_steps)
        waits.append(statistics.median(turn))
        longest.append(max(turn))
        del batches
    return {
        "added": statistics.median(added),
        "added_in_each_run": added,
        "steps": num_steps,
        "epochs": epochs,
        "median_wait_ms": 1000 * statistics.median(waits),
        "longest_wait_ms": 1000 * statistics.median(longest),
        "main_thread_ms_per_step": 1000 * statistics.median(on_cpu),
        "first_batch_ms": 1000 * statistics.median(first),
    }


def missed(record: Figures) -> list[str]:
    """The bars that are missed."""
    rows = record.get("pipelines", {}).items()
    found = [f"{name}: Pillow" for name, row in rows if row["pillow_ratio"] < BARS["pillow"]]
    found += [f"{name}: torchvision" for name, row in rows if row["torchvision_ratio"] < BARS["torchvision"]]
    if record.get("scaled", {}).get("lowest_psnr", math.inf) <= BARS["scaled_psnr"]:
        found.append("scaled: PSNR")
    if record.get("loader", {}).get("added", 0) >= BARS["loader"]:
        found.append("loader: added time")
    return found


def versions() -> dict[str, str]:
    names = ("torch", "torchvision", "pillow", "simplejpeg", "PyTurboJPEG", "opencv-python")
    found = {}
    for name in names:
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found


def show(record: Figures) -> None:
    for part in ("decoders", "pipelines", "workers"):
        for name, row in record.get(part, {}).items():
            print(f"{name:45s}", "  ".join(f"{key} {value:.3f}" for key, value in row.items()))
    for part in ("scaled", "loader"):
        for key, value in record.get(part, {}).items():
            print(f"{part}: {key} {value}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parts = ("decoders", "pipelines", "workers", "scaled", "loader")
    parser.add_argument("--parts", nargs="+", choices=parts, default=parts, help="what is measured")
    parser.add_argument("--repeats", type=int, default=31, help="turns of each side")
    parser.add_argument("--out", type=Path, help="also write the figures here, as JSON")
    given = parser.parse_args()
    if not all(os.environ.get(name) for name in KEEPS_MEMORY):  # it is read when a process starts
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | KEEPS_MEMORY)

    warnings.filterwarnings("ignore", message=".*deprecat.*")  # torchvision's decoders
    torch.set_num_threads(1)
    record: Figures = {
        "command": "python " + " ".join(sys.argv),
        "date": date.today().isoformat(),
        "hardware": f"{platform.machine()}, {os.cpu_count()} cores, of which one is used, and two by the loader",
        "versions": versions(),
        "bars": BARS,
    }
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        files = {side: write_files(folder, side) for side in SIZES}
        if "decoders" in given.parts:
            record["decoders"] = measure_decoders(files, given.repeats)
        if "pipelines" in given.parts:
            record["pipelines"] = measure_pipelines(folder, given.repeats)
        if "workers" in given.parts:
            record["workers"] = measure_workers(folder, given.repeats)
        if "scaled" in given.parts:
            record["scaled"] = measure_scaled(files, given.repeats)
        if "loader" in given.parts:
            record["loader"] = measure_loader(folder)
    record["missed"] = missed(record)
    show(record)
    print("missed:", ", ".join(record["missed"]) or "none")
    if given.out:
        given.out.write_text(json.dumps(record, indent=2) + "\n")
    return bool(record["missed"])


if __name__ == "__main__":
    sys.exit(main())
