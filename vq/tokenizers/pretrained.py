"""A trained tokenizer as a part of a config: frozen, from weight files that say what they are."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from vq import config as configs
from vq.registry import TOKENIZERS, build
from vq.tokenizers.checkpoint import CheckpointError, find_weights, load_weights, read_weights


@TOKENIZERS.register_module()  # type: ignore[untyped-decorator]
def pretrained_tokenizer(*, weights: Sequence[str], config: str | None = None) -> nn.Module:
    """Builds the tokenizer that weight files belong to, loads them, and freezes it (eval mode, no gradient).

    Args:
        weights: Weight files, checkpoint folders or run folders; later ones over earlier ones, so that a
            decoder trained for a frozen encoder can lie over it.
        config: A page or `config.json` whose tokenizer it is; None for that inside the last weight file.

    Raises:
        CheckpointError: If no weights are named, a file is missing, damaged or of another tokenizer, or
            none says what it is and there is no `config`.
    """
    if not weights or not all(weights):
        raise CheckpointError(
            "pretrained_tokenizer: expected the weights of a trained tokenizer, got none; give e.g. "
            "--config-options it_state_dict::work_dirs/NAME"
        )
    files = [find_weights(path) for path in weights]
    node = _node(files, config)
    # A page is the user's own code; the config inside a weight file may name only classes of this project.
    tokenizer: nn.Module = build(node, path="tokenizer", registered_only=config is None)
    load_weights(tokenizer, files)
    return tokenizer.eval().requires_grad_(requires_grad=False)


def _node(files: Sequence[Path], config: str | None) -> Mapping[str, Any]:
    if config is not None:
        page = configs.load(Path(config)).to_dict()
    else:
        found = [page for file in files if (page := read_weights(file)[1]) is not None]
        if not found:
            raise CheckpointError(
                f"{', '.join(map(str, files))}: carry no config; name the page too (config=..., "
                f"ir_config::PAGE on the command line)"
            )
        page = found[-1]
    if "tokenizer" not in page:
        raise CheckpointError(
            f"{config or files[-1]}: expected a config with a section 'tokenizer', got none"
        )
    node: Mapping[str, Any] = page["tokenizer"]
    return node
