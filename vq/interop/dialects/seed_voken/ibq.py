"""IBQ of SEED-Voken: the names of VQGAN, with averaged weights under names without dots."""

from typing import Any

from torch import nn

from vq.interop.dialect import Dialect, InteropError, NamedTensors
from vq.interop.dialects.taming import SPELLING
from vq.interop.spelling import CODEBOOK, INITIALISED, to_ours
from vq.interop.vqgan import check_networks, describe_vqgan
from vq.quantizers import IndexBackpropagationQuantizer
from vq.zoo.families.ibq import with_index_backpropagation

AVERAGED = "model_ema."
"""The prefix of the averaged weights, with which the project evaluates; the rest is the usual name without dots."""
UNUSED = r"loss\..*|model_ema\.(loss.*|decay|num_updates)"
"""The names of the tensors that are not part of a tokenizer of SEED-Voken."""


def preferring_averages(state: NamedTensors, project: str) -> NamedTensors:
    """The weights by their usual names: the averaged ones if there are some, else those of the last step.

    Args:
        state: The tensors of the tokenizer.
        project: The name of the dialect.

    Raises:
        InteropError: If some weights have an average and others have none.
    """
    usual = {name: tensor for name, tensor in state.items() if not name.startswith(AVERAGED)}
    averaged = {name.removeprefix(AVERAGED): t for name, t in state.items() if name.startswith(AVERAGED)}
    if not averaged:
        return usual
    dotless = {name.replace(".", ""): name for name in usual}
    if unknown := [name for name in averaged if name not in dotless] or [
        n for n in dotless if n not in averaged
    ]:
        raise InteropError(
            f"{project} weights: expected an average of each weight, got {len(unknown)} that have no counterpart "
            f"({', '.join(unknown[:6])}); the file is damaged, or of another project"
        )
    return {dotless[name]: tensor for name, tensor in averaged.items()}


def _describe(state: NamedTensors) -> dict[str, Any]:
    described = describe_vqgan(preferring_averages(state, "ibq"), SPELLING, distance="EuclideanDistance")
    return {"tokenizer": with_index_backpropagation(described["tokenizer"])}


def _translate(state: NamedTensors) -> NamedTensors:
    ours = dict(to_ours(preferring_averages(state, "ibq"), SPELLING))
    del ours[INITIALISED]
    if CODEBOOK in ours:
        ours["quantizer.codes"] = ours.pop(CODEBOOK)
    return ours


def _check(tokenizer: nn.Module) -> None:
    quantizer = getattr(tokenizer, "quantizer", None)
    if not isinstance(quantizer, IndexBackpropagationQuantizer):
        raise InteropError(
            f"ibq weights: expected a tokenizer with an IndexBackpropagationQuantizer, got {type(quantizer).__name__}; "
            "use a config with one"
        )
    check_networks(tokenizer, "ibq")


def _recognises(state: NamedTensors) -> bool:
    """Whether there are four blocks at each resolution; a VQGAN of taming may have as many, and the names are equal."""
    blocks = [f"encoder.down.0.block.{index}.conv1.weight" in state for index in (3, 4)]
    return (
        blocks == [True, False] and "quantize.embedding.weight" in state and "encoder.conv_in.bias" in state
    )


DIALECT = Dialect(
    name="ibq",
    recognises=_recognises,
    describe=_describe,
    translate=_translate,
    check=_check,
    ignored=UNUSED,
)
"""The weights of IBQ. Without averages, names and shapes can be those of a VQGAN too, and the dialect must be given."""
