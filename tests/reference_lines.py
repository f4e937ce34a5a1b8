"""Every command line of the documents that docs/reference_commands.md is about, as written there.

Installation, `mkdir`, and the loops that delete checkpoints are left out: they run no program of this project.
"""

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass

VALUES = {
    "${dataset:-imagenet}": "imagenet",
    "${image_root}": "images",
    "${name}": "name",
    "${config}": "configs/vqgan/8192_dd2_aglwg075_imagenet_ddp.py",
    "${load_model_from}": "work_dirs/vqgan/8192_dd2_aglwg075_imagenet_ddp/checkpoints/iter_2/model.pth",
}
"""What the documents leave to the reader."""

RANGE = "[--load-from iter_{15..26}0000]"
NON_STRICT = r"[--override .trainer.callbacks[-1].load_state_dict:dict\(strict=False\)]"
BEITV2 = "pretrained/beitv2/vqkd_encoder_base_decoder_1x768x12_clip.pth"
VQGAN = (
    "vqgan/8192_dd2_aglwg075_imagenet_ddp",
    "vqgan/1024_imagenet_ddp",
    "vqgan/8192_imagenet_ddp",
    "vqgan/8192_laion_aesthetics_ddp",
    "vqgan/8192_sa_med2d_20m_ddp",
    "vqgan/8192_satin_ddp",
    "vqgan/8192_stylegan2_imagenet_ddp",
)
TOKENIZERS = (
    *VQGAN,
    "cvqvae/8192_dd2_aglwg075_imagenet_ddp",
    "fsq/8000_imagenet_ddp",
    "fsq/64000_imagenet_ddp",
    "vqkd/clip_8192_imagenet_ddp",
    "cluster/clip_8192_imagenet_ddp",
)
DECODED = ("vqkd", "cluster")
DECODERS = ("vqgan", "llamagen")
MALFORMED = (
    "auto_torchrun -m vq.val auto_torchrun -m vq.train cluster/clip_8192_imagenet_ddp "
    f"configs/cluster/clip_8192_imagenet_ddp.py {RANGE}"
)
"""The one line that is wrong in the documents: a second command stands inside it."""


@dataclass(frozen=True, slots=True)
class Line:
    """A command line.

    Attributes:
        text: As the documents have it, on one line; what stands in `[ ]` is optional.
        stage: Where it belongs in a project, from which it follows what must have run before.
        meant: What a malformed line should be; empty if it is well-formed.
    """

    text: str
    stage: str
    meant: str = ""

    def forms(self) -> list[list[str]]:
        """The words of the line as a shell passes them: with all optional parts, and without them."""
        text = self.meant or self.text
        parts = optional_parts(text)
        full, plain = text, text
        for part in parts:
            full, plain = full.replace(part, part[1:-1]), plain.replace(part, "")
        return [words(full), words(plain)] if parts else [words(text)]


def optional_parts(text: str) -> list[str]:
    """The parts of a line in `[ ]`, those of places such as `callbacks[-1]` excepted."""
    return re.findall(r"\[--(?:\[[^\]]*\]|[^\[\]])*\]", text)


def words(text: str) -> list[str]:
    """What a shell makes of a line: variables and ranges expanded, quotes and backslashes removed."""
    for variable, value in VALUES.items():
        text = text.replace(variable, value)
    return [each for word in shlex.split(text) for each in expanded(word)]


def expanded(word: str) -> Iterator[str]:
    """The words of a range: `a{1..3}b` is `a1b a2b a3b`."""
    found = re.fullmatch(r"(.*)\{(\d+)\.\.(\d+)\}(.*)", word)
    if found is None:
        yield word
        return
    before, start, stop, after = found.groups()
    for number in range(int(start), int(stop) + 1):
        yield f"{before}{number}{after}"


def decoder_line(command: str, decoder: str, tokenizer: str) -> str:
    """Trains or validates a decoder for the indices of a frozen tokenizer."""
    middle = f"{RANGE} " if command == "val" else ""
    return (
        f"auto_torchrun -m vq.{command} "
        f"decoder/{decoder}/{tokenizer}_clip_8192_imagenet_ddp/{decoder}_8192_dd2_aglwg075_imagenet_ddp "
        f"configs/decoder/{decoder}.py --config-options it_config::configs/{tokenizer}/clip_8192_imagenet_ddp.py "
        f"--load-model-from work_dirs/dry_run/{tokenizer}/clip_8192_imagenet_ddp/checkpoints/iter_7/model.pth "
        f"{middle}{NON_STRICT}"
    )


def validation(name: str) -> Line:
    """Validates the checkpoints of a tokenizer."""
    text = f"auto_torchrun -m vq.val {name} configs/{name}.py {RANGE}"
    return Line(MALFORMED, "val", meant=text) if name.startswith("cluster/") else Line(text, "val")


DECODER_RUN = (
    "work_dirs/dry_run/decoder/vqgan/vqkd_clip_8192_imagenet_ddp/vqgan_8192_dd2_aglwg075_imagenet_ddp"
)
FOLDER = "--work-dir ${image_root}/.."
TOKENIZE = (
    "bash tools/torchrun.sh -m vq.tasks.image_tokenization.tokenize ${name} ${config} "
    "--override .validator.type::VQITRunnerRegistry.Tokenizer --load-model-from ${load_model_from}"
)
LINES = (
    *(
        Line(f"python tools/prepare_checkpoints.py {group}", "weights")
        for group in ("pytorch_fid", "lpips", "inception", "torchvision", "beitv2")
    ),
    Line(f"python tools/convert_checkpoints.py beitv2 {BEITV2} --options with_decoder:False", "convert"),
    Line(
        f"python tools/convert_checkpoints.py beitv2 {BEITV2} --options with_decoder:True "
        "--suffix .converted.with_decoder",
        "convert",
    ),
    Line("auto_torchrun -m vq.fid imagenet", "reference"),
    Line("auto_torchrun -m vq.fid imagenet --train --override .dataloader.batch_size:1024", "reference"),
    *(Line(f"auto_torchrun -m vq.train {name} configs/{name}.py", "train") for name in TOKENIZERS),
    *(validation(name) for name in TOKENIZERS),
    *(Line(decoder_line("train", d, t), "train decoder") for t in DECODED for d in DECODERS),
    *(Line(decoder_line("val", d, t), "val decoder") for t in DECODED for d in DECODERS),
    Line(
        "auto_torchrun -m vq.train ar/c2i_llama_medium_cfg_imagenet_ddp "
        f"configs/ar/c2i_llama_medium_cfg_imagenet_ddp.py --config-options ir_config::{DECODER_RUN}/vqgan.py "
        "it_state_dict::work_dirs/dry_run/vqkd/clip_8192_imagenet_ddp/checkpoints/iter_7/model.pth "
        f"ir_state_dict::{DECODER_RUN}/checkpoints/iter_2/model.pth",
        "train generator",
    ),
    Line(
        "torchrun --nproc_per_node=1 -m vq.inference configs/vqkd_clip_8192_dd3_imagenet_ddp.py "
        "data/imagenet/val/n01440764/ILSVRC2012_val_00000293.JPEG "
        "--load-model-from work_dirs/vqkd_8192_imagenet_ddp_autocast/checkpoints/iter_250000/model.pth",
        "use",
    ),
    Line(f"run -- python tools/fidelity.py ${{dataset:-imagenet}} ${{image_root}} {FOLDER}", "fid"),
    Line(f"run -- python tools/fidelity.py ${{dataset:-imagenet}} ${{image_root}} --train {FOLDER}", "fid"),
    Line(f"bash tools/torchrun.sh tools/fid.py imagenet_val ${{image_root}} {FOLDER}", "fid"),
    Line(f"bash tools/torchrun.sh tools/fid.py imagenet_train ${{image_root}} {FOLDER}", "fid"),
    Line(
        "bash tools/torchrun.sh -m vq.test ${name} ${config} --tokenize --load-model-from ${load_model_from}",
        "use",
    ),
    Line(TOKENIZE, "use"),
    Line(f"{TOKENIZE} --train", "use"),
    Line(
        "bash tools/torchrun.sh tools/llamagen.py llamagen/vqkd_8192_imagenet_ddp configs/vqkd/8192_imagenet_ddp.py "
        "--load-model-from "
        "work_dirs/models/vqkd_openclip_bigG_14_8192_imagenet_ddp_autocast/checkpoints/iter_250000/model.pth",
        "use",
    ),
    Line(
        "python tools/visualize_patches.py configs/vqkd/clip_8192_imagenet_ddp.py "
        "work_dirs/vqkd_clip_tokenize_tokenize/tokens",
        "atlas",
    ),
    Line(
        "python tools/visualize_patches.py configs/vqgan/8192_dd2_aglwg075_imagenet_ddp.py "
        "work_dirs/vqgan_tokenize_tokenize/tokens",
        "atlas",
    ),
)
"""All of them, in the order in which a project runs them."""


def program(line: list[str]) -> tuple[str, list[str]]:
    """The module that a line runs (`vq.train`, `tools.fid`) and its arguments, without the launcher.

    Raises:
        ValueError: If the launcher is unknown.
    """
    rest = list(line)
    for launcher in (
        ["run", "--", "python"],
        ["auto_torchrun"],
        ["bash", "tools/torchrun.sh"],
        ["torchrun", "--nproc_per_node=1"],
        ["python"],
    ):
        if rest[: len(launcher)] == launcher:
            rest = rest[len(launcher) :]
            break
    else:
        raise ValueError(f"no known launcher: {line}")
    if rest[0] == "-m":
        return rest[1], rest[2:]
    return rest[0].removesuffix(".py").replace("/", "."), rest[1:]
