"""Modules that have moved since version 0.1. Their old names still import the same modules, until version 0.3.

So pages and programs that name a module inside a package keep working. Names that a package exports, such as
`vq.engine.Trainer`, have not changed, and are what new code should import.
"""

import importlib
import importlib.abc
import sys
from collections.abc import Iterable
from importlib.machinery import ModuleSpec
from types import ModuleType

_MOVED_INTO = {
    "vq.data.sets": "image_folder",
    "vq.data.stores": "token_manifest token_shards token_store tokens",
    "vq.engine.assembly": "class_names",
    "vq.engine.evaluation": "evaluator pictures progress",
    "vq.engine.jobs": "following generation sample_folder tokenization",
    "vq.engine.loop": "checkpointer heartbeat launch resuming run_lock trainer",
    "vq.engine.steps": "adversarial alternating schedules tuning weight_ema",
    "vq.interop.dialects": "diffusers llamagen taming",
    "vq.networks.convolutional": "cnn strided_cnn vq_vae",
    "vq.networks.discriminators": "patchgan stylegan",
    "vq.networks.frozen": "efficientnet features inception lpips timm_vit",
    "vq.networks.transformers": "frequency latent_tokens vit",
    "vq.ops.numerics": "constants integers precision reductions",
    "vq.quantizers.codebooks": "affine anchors clustered frozen projected",
    "vq.quantizers.parts": "annealing contrastive distances estimators initialization regularisers revival",
    "vq.quantizers.wrappers": (
        "axis bottleneck carry multi_scale product residual residual_coefficient residual_finite_scalar"
    ),
}
MOVED = {
    f"{folder.rpartition('.')[0]}.{name}": f"{folder}.{name}"
    for folder, names in _MOVED_INTO.items()
    for name in names.split()
} | {
    "vq.data.digits": "vq.data.sets.embedded.digits",
    "vq.data.embedded": "vq.data",
    "vq.engine.adversary": "vq.engine.steps.discriminator",
    "vq.engine.assemble": "vq.engine.assembly",
    "vq.engine.loop.callbacks": "vq.engine.callbacks",
    "vq.engine.ending": "vq.engine.loop.stopping",
    "vq.engine.moving": "vq.engine.steps.optimization",
    "vq.engine.proposal": "vq.engine.steps.generator",
    "vq.engine.proposal_evaluator": "vq.engine.evaluation.generator_evaluator",
    "vq.engine.reference": "vq.engine.jobs.reference_statistics",
    "vq.engine.validation": "vq.engine.jobs.scoring",
    "vq.networks.dino_discriminator": "vq.networks.discriminators.dino",
}
"""Old full name -> new full name."""


class _OldNames(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds a module under its old name, and loads the one under the new name."""

    def find_spec(
        self, fullname: str, path: Iterable[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        return ModuleSpec(fullname, self) if fullname in MOVED else None

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        module = importlib.import_module(MOVED[spec.name])
        spec.loader_state = module.__spec__  # the import system is about to overwrite it
        return module

    def exec_module(self, module: ModuleType) -> None:
        old = module.__spec__
        if old is not None and old.loader is self:
            module.__spec__ = old.loader_state


def install() -> None:
    """Makes the old names importable; `import vq` does it. It has no effect the second time."""
    if not any(isinstance(finder, _OldNames) for finder in sys.meta_path):
        sys.meta_path.append(_OldNames())
