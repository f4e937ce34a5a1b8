"""Checks that the data fit the model, before any training or validation."""

import math

import torch

from vq.data import FeatureLoader, ImageLoader, TokenLoader
from vq.engine.evaluation.base import check_views
from vq.engine.steps.adversarial import AdversarialStep
from vq.engine.steps.alternating import AlternatingStep
from vq.engine.steps.base import TokenizerStep, TrainStep
from vq.engine.steps.generator import tokens_of
from vq.errors import ConfigError
from vq.generators import Generator
from vq.layers.modes import evaluating
from vq.losses import FeatureAlignment
from vq.networks.sizes import declared_size, image_channels_of
from vq.ops.numerics.precision import at_least_float32
from vq.probes import LinearProbe
from vq.tokenizers import Tokenizer
from vq.tokenizers.fingerprint import fingerprint


def check_images(tokenizer: torch.nn.Module, loader: ImageLoader, name: str) -> None:
    """Refuses images of other channels than the tokenizer's, or whose sides its stride does not divide."""
    check_channels(loader, name, type(tokenizer).__name__, image_channels_of(tokenizer))
    height, width = loader.image_size
    factor = declared_size(tokenizer, "downsample_factor")
    if height % factor or width % factor:
        raise ConfigError(
            f"{name}: its images are {height} x {width}, but the tokenizer scales down by {factor}, which does not "
            f"divide them; crop to {max(1, height // factor) * factor} x {max(1, width // factor) * factor}"
        )
    # Networks that turn an image into a sequence are built for one image size.
    wanted = getattr(tokenizer, "image_size", None) or (height, width)
    if wanted != (height, width):
        raise ConfigError(
            f"{name}: its images are {height} x {width}, but tokenizer.decoder is made for {wanted[0]} x {wanted[1]}; "
            f"resize them, or set tokenizer.decoder.image_size"
        )


def check_channels(loader: ImageLoader, name: str, network: str, wanted: int) -> None:
    """Refuses images that do not have the number of channels that a network takes.

    Args:
        loader: The images.
        name: The section of the loader.
        network: The name of the tokenizer's or network's class.
        wanted: The number of channels that it takes.

    Raises:
        ConfigError: With the two places in the config that can be changed.
    """
    found = loader.dataset.channels
    if found != wanted:
        raise ConfigError(
            f"{name}: its images have {found} channel{'s' * (found != 1)}, but {network} takes {wanted}; set "
            f"{name}.dataset.channels={wanted} if the set takes it, or image_channels={found} in the encoder, the "
            f"decoder and the discriminator (channels={found} in patches)"
        )


def check_data(
    model: torch.nn.Module,
    frozen_tokenizer: Tokenizer | None,
    loader: ImageLoader | TokenLoader | FeatureLoader,
    name: str,
) -> None:
    """Refuses data that do not fit what is trained or validated, before any work.

    Stored features are compared with the tokenizer's encoder by `check_features`.

    Raises:
        ConfigError: With the section's name, what was expected and what was found.
    """
    if isinstance(loader, FeatureLoader):
        if name != "train_data":
            raise ConfigError(f"{name}: holds features; an evaluator needs images")
        if isinstance(model, LinearProbe | Generator):
            raise ConfigError(f"{name}: holds features; {type(model).__name__} needs images or tokens")
        return
    if isinstance(model, LinearProbe):
        _check_probed(model, loader, name)
        return
    if not isinstance(model, Generator):
        if isinstance(loader, TokenLoader):
            raise ConfigError(f"{name}: holds tokens; a tokenizer needs images")
        check_images(model, loader, name)
        return
    _check_num_classes(model.num_classes, "generator", loader, name)
    if isinstance(loader, TokenLoader):
        _check_store(model, frozen_tokenizer, loader, name)
    elif frozen_tokenizer is not None:
        check_images(frozen_tokenizer, loader, name)
    batch = loader.fixed_batch(1)
    indices, _ = tokens_of(batch, frozen_tokenizer, next(model.parameters()).device)
    if frozen_tokenizer is not None and frozen_tokenizer.codebook_size != model.vocabulary_size:
        raise ConfigError(
            f"generator.vocabulary_size: expected {frozen_tokenizer.codebook_size}, the tokenizer's, got "
            f"{model.vocabulary_size}"
        )
    if indices[0].numel() != math.prod((*model.grid, model.num_indices)):
        raise ConfigError(
            f"{name}: a sample has indices of the shape {tuple(indices.shape[1:])}, the generator is made for "
            f"a grid of {tuple(model.grid)} with {model.num_indices} each; set generator.grid and generator.num_indices"
        )


def _check_num_classes(num_classes: int, what: str, loader: ImageLoader | TokenLoader, name: str) -> None:
    found = len(loader.dataset.class_names)
    if found > num_classes:
        raise ConfigError(f"{name}: has {found} classes, the {what} {num_classes}; set {what}.num_classes")


def _check_probed(probe: LinearProbe, loader: ImageLoader | TokenLoader, name: str) -> None:
    """Refuses data without classes, or that the probe's features cannot be computed of."""
    if len(loader.dataset.class_names) < 2:
        raise ConfigError(
            f"{name}: its images have no labels (one class), but a probe needs them; give a set with a folder for each "
            f"class"
        )
    _check_num_classes(probe.num_classes, "probe", loader, name)
    if loader.batch_size < 2:
        raise ConfigError(
            f"{name}: a probe normalizes over the batch; expected a batch_size of at least 2, got {loader.batch_size}"
        )
    tokenizer = probe.features.tokenizer
    if isinstance(loader, ImageLoader):
        check_images(probe.features if tokenizer is None else tokenizer, loader, name)
    elif tokenizer is None:
        raise ConfigError(
            f"{name}: holds tokens; {type(probe.features).__name__} needs images, an ImageLoader"
        )
    else:
        _check_maker(tokenizer, loader, name)


def _check_store(
    model: Generator, frozen_tokenizer: Tokenizer | None, loader: TokenLoader, name: str
) -> None:
    """Refuses indices that the page's tokenizer did not make."""
    manifest, root = loader.dataset.store.manifest, loader.dataset.root
    if manifest["vocabulary_size"] != model.vocabulary_size:
        raise ConfigError(
            f"{name}: {root} has indices below {manifest['vocabulary_size']}, the generator is made for "
            f"{model.vocabulary_size}; set generator.vocabulary_size"
        )
    if frozen_tokenizer is not None:
        _check_maker(frozen_tokenizer, loader, name)


def _check_maker(tokenizer: Tokenizer, loader: TokenLoader, name: str) -> None:
    """Refuses a store that a tokenizer with other weights made."""
    mine, theirs = fingerprint(tokenizer), loader.dataset.store.manifest["tokenizer_sha256"]
    if mine != theirs:
        raise ConfigError(
            f"{name}: {loader.dataset.root} was made by a tokenizer with the checksum {theirs[:16]}..., the page's has "
            f"{mine[:16]}...; tokenize again with its weights, or name the weights of the store"
        )


@torch.no_grad()
def check_losses(step: TrainStep, loader: ImageLoader | TokenLoader | FeatureLoader) -> None:
    """Refuses losses and discriminators that do not fit the images, the tokenizer or a teacher.

    Losses of features are tried with one image.

    Raises:
        ConfigError: With the place in the config.
    """
    place = "train_step"
    if isinstance(step, AlternatingStep):
        step, place = step.step, "train_step.step"
    if not isinstance(step, TokenizerStep) or not isinstance(loader, ImageLoader):
        return
    channels = step.tokenizer.image_channels
    for name, loss in step.losses.items():
        check_views(f"{place}.losses.{name}", loss, channels)
    if isinstance(step, AdversarialStep):
        _check_discriminator(step.adversary.discriminator, f"{place}.adversary.discriminator", channels)
    aligned = {name: loss for name, loss in step.losses.items() if isinstance(loss, FeatureAlignment)}
    if not aligned:
        return
    image = step.image_of(loader.fixed_batch(1))
    with evaluating(step.tokenizer):
        output = step.tokenizer(image)
    for name, loss in aligned.items():
        try:
            loss(at_least_float32(step.sources.of(loss, output)), image)
        except ValueError as error:
            raise ConfigError(f"{place}.losses.{name}: {error}") from error


def _check_discriminator(discriminator: torch.nn.Module, place: str, channels: int) -> None:
    """Refuses a discriminator for images of other channels than the tokenizer's."""
    check_views(place, discriminator, channels)
    found = getattr(discriminator, "image_channels", channels)
    if found != channels:
        raise ConfigError(
            f"{place}: takes images of {found} channels, but the tokenizer's have {channels}; set "
            f"{place}.image_channels={channels}"
        )
