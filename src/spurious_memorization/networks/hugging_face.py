"""Classifiers of the transformers library, from a local folder or a name on the Hugging Face Hub: `hf:PATH`.

Only the library's own code and safetensors files are used, never code or pickles that come with a network.
"""

from __future__ import annotations

import inspect
import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from ..atomic import atomic_folder
from ..console import log
from ..datasets.texts import MAX_TOKENS, Texts, Tokenization, chunks, digest_of, load_tokenizer
from ..datasets.transforms import ImageTransform
from ..errors import UserError, first_line
from ..extras import imported

PREFIX = "hf:"

SAME_IMAGE = 0.02
"""Mean difference of two inputs of one image, in units of their standard deviation. Two libraries round differently."""

LARGEST_COPY = 100 * 2**20
"""Bytes of a tokenizer and a configuration that are copied, at most. Those for 250,000 words have 20 MB."""

_SHOWN_LABELS = 10


def configuration(model: str) -> dict[str, Any]:
    """The configuration of a network, as plain data. The network can be built from it without its folder.

    Arguments:
        model: `hf:PATH`, with a folder or a name on the hub.

    Raises:
        UserError: transformers is not installed; the folder or name is unknown; it is no classifier.
    """
    transformers = imported("transformers", "transformers")
    with _silent(transformers):
        try:
            config = transformers.AutoConfig.from_pretrained(place(model), trust_remote_code=False)
        except Exception as error:  # a broken configuration can raise anything
            raise UserError(
                f"{model} has no configuration that transformers can read ({first_line(error)}): name a folder that "
                "save_pretrained wrote, or a network of the hub"
            ) from error
    is_for = "images" if _is_for_images(transformers, config, model) else "text"
    log(f"{model}: {config.model_type}, a classifier of {is_for}{_architectures(config)}")
    return dict(json.loads(config.to_json_string(use_diff=False)))


def build_network(
    model: str, stored: Mapping[str, Any], n_classes: int, image_size: int | None, pretrained: bool
) -> tuple[nn.Module, bool]:
    """The network, and whether its head has trained weights. A head of another number of classes starts at random.

    Arguments:
        model: `hf:PATH`.
        stored: see `configuration`.
        n_classes: number of outputs.
        image_size: side of the input in pixels; None for the network's own.
        pretrained: whether it gets the weights of its folder, or of the hub. Otherwise they are random.

    Raises:
        UserError: the configuration can't be built; there are no weights in a safetensors file, or they don't fit.
    """
    transformers = imported("transformers", "transformers")
    try:
        config = transformers.AutoConfig.for_model(**{**stored, "architectures": stored.get("architectures") or []})
        labels = dict(config.id2label)
        if len(labels) != n_classes:
            config.num_labels = n_classes
        if image_size is not None and hasattr(config, "image_size"):
            config.image_size = image_size
        is_for_images = _is_for_images(transformers, config, model)
        kind = (
            transformers.AutoModelForImageClassification
            if is_for_images
            else transformers.AutoModelForSequenceClassification
        )
        if not pretrained:
            with _silent(transformers):
                return kind.from_config(config, trust_remote_code=False, dtype=torch.float32), False
    except UserError:
        raise
    except Exception as error:
        raise UserError(f"{model} can't be built from its configuration: {first_line(error)}") from error
    network, lacking = _loaded(transformers, kind, model, config)
    if not lacking:
        _say_labels(model, labels)
    return network, not lacking


def own_transform(model: str, stored: Mapping[str, Any]) -> ImageTransform:
    """The transform of a network's image processor; without one, ImageNet's at the size of the configuration.

    The processor itself is asked for one image. If its input differs from that of the transform, a log line says so.

    Raises:
        UserError: the processor's images are no squares in three colors, or no size is known.
    """
    transformers = imported("transformers", "transformers")
    with _silent(transformers):
        try:
            processor = transformers.AutoImageProcessor.from_pretrained(place(model), trust_remote_code=False)
        except Exception as error:  # a broken file can raise anything
            size = stored.get("image_size")
            if not isinstance(size, int):
                raise UserError(
                    f"{model} has no image processor ({first_line(error)}) and no image size: give --image-size"
                ) from error
            log(f"{model} has no image processor: images get ImageNet's mean and standard deviation")
            return ImageTransform(image_size=size, resize=size)
    transform = _of_processor(model, processor.to_dict())
    difference = _difference(processor, transform)
    if difference > SAME_IMAGE:
        log(
            f"note: inputs of {type(processor).__name__} differ from these by {difference:.2g} standard deviations on "
            "average: it does more than resize, crop and normalize"
        )
    return transform


def own_tokenization(model: str, stored: Mapping[str, Any], texts: Texts) -> Tokenization:
    """How the network's own tokenizer makes inputs of these texts. A log line says how many texts are cut.

    The length is that of the longest text, but at most `texts.max_tokens`, and no longer than the network can read.

    Raises:
        UserError: there is no tokenizer, it has more words than the network, or the network is none of text.
    """
    transformers = imported("transformers", "transformers")
    config = transformers.AutoConfig.for_model(**stored)
    if _is_for_images(transformers, config, model):
        raise UserError(f"{model} is a network for images, but the data are texts: choose one of text")
    with _silent(transformers):
        tokenizer = load_tokenizer(place(model))
        digest = digest_of(tokenizer)
        lengths = [len(ids) for part in chunks(texts.texts, texts.pairs) for ids in tokenizer(*part)["input_ids"]]
    if len(tokenizer) > config.vocab_size:
        raise UserError(
            f"the tokenizer of {model} has {len(tokenizer)} words, but its network has {config.vocab_size}: take both "
            "from the same network"
        )
    positions = getattr(config, "max_position_embeddings", None) or tokenizer.model_max_length
    limit = min(texts.max_tokens or MAX_TOKENS, tokenizer.model_max_length, positions)
    if n_cut := sum(length > limit for length in lengths):
        log(f"note: {n_cut} of {len(lengths)} texts have more than {limit} tokens and are cut: see --max-tokens")
    network = transformers.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING[type(config)]
    taken = inspect.signature(network.forward).parameters
    folder = Path(place(model))
    return Tokenization(
        tokenizer=str(folder.resolve()) if folder.is_dir() else place(model),
        digest=digest,
        length=min(max(lengths), limit),
        names=tuple(name for name in tokenizer.model_input_names if name in taken),
    )


def copy_without_weights(stored: Mapping[str, Any], tokenization: Tokenization, folder: Path) -> None:
    """Write a configuration and a tokenizer into a folder: with weights, `hf:FOLDER` is the same network.

    If the files are too large, or would be read as another tokenizer, there is no copy, and a log line says so.

    Arguments:
        stored: see `configuration`.
        tokenization: with the tokenizer.
        folder: an earlier copy in it is replaced.

    Raises:
        UserError: the tokenizer is missing or has changed.
    """
    transformers = imported("transformers", "transformers")
    shutil.rmtree(folder, ignore_errors=True)
    with _silent(transformers):
        tokenizer = tokenization.load()
        try:
            with atomic_folder(folder) as copy:
                transformers.AutoConfig.for_model(**stored).save_pretrained(copy)
                tokenizer.save_pretrained(copy)
                size = sum(file.stat().st_size for file in copy.iterdir())
                if size > LARGEST_COPY:
                    raise UserError(f"it has {size / 2**20:.0f} MB, more than {LARGEST_COPY / 2**20:.0f}")
                tokenization.model_copy(update={"tokenizer": str(copy)}).load()
        except UserError as error:
            log(f"note: the tokenizer in {tokenization.tokenizer} is not copied to {folder} ({error}): keep it")


def place(model: str) -> str:
    """The folder, or the name on the hub.

    Raises:
        UserError: it is no folder and can't be a name.
    """
    name = model.removeprefix(PREFIX)
    folder = Path(name).expanduser()
    if folder.is_dir():
        return str(folder)
    if not name or folder.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
        raise UserError(f"{model}: there is no folder {name!r}: name one with config.json and model.safetensors")
    return name


def _is_for_images(transformers: Any, config: Any, model: str) -> bool:
    """Whether the network is a classifier of images; otherwise it is one of text.

    The library's lists decide, and the stored architecture where the type is on both.
    """
    images = type(config) in transformers.MODEL_FOR_IMAGE_CLASSIFICATION_MAPPING
    text = type(config) in transformers.MODEL_FOR_SEQUENCE_CLASSIFICATION_MAPPING
    if images and text:
        return not any("SequenceClassification" in name for name in config.architectures or ())
    if not images and not text:
        raise UserError(
            f"{model} is of the type {config.model_type}, for which transformers has no classifier of images or text: "
            "choose another network, or write a module:factory"
        )
    return images


def _architectures(config: Any) -> str:
    return f" (saved as {', '.join(config.architectures)})" if config.architectures else ""


def _loaded(transformers: Any, kind: Any, model: str, config: Any) -> tuple[nn.Module, list[str]]:
    """The network with its own weights, and the names of the tensors that start at random."""
    with _silent(transformers):
        try:
            network, found = kind.from_pretrained(
                place(model),
                config=config,
                use_safetensors=True,
                trust_remote_code=False,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
                dtype=torch.float32,
            )
        except Exception as error:  # missing or broken files raise many types
            raise UserError(
                f"{model} has no weights that can be loaded ({first_line(error)}): give a folder with "
                "model.safetensors, or --weights none"
            ) from error
    mismatched = sorted(str(entry[0]) for entry in found["mismatched_keys"])
    lacking = sorted({*map(str, found["missing_keys"]), *mismatched})
    body = [name for name in lacking if name.startswith(f"{network.base_model_prefix}.")]
    if wrong := [name for name in mismatched if name in body]:
        raise UserError(
            f"the weights of {model} have another shape than its network at {wrong[0]}: leave out --image-size, or "
            "take one with which it was trained"
        )
    if len(body) > len(network.state_dict()) / 2:
        raise UserError(f"the weights of {model} are of another network: {body[0]} is missing")
    if lacking:
        log(f"{model}: {', '.join(lacking)} start at random, since its weights have none of this shape")
    return network, lacking


def _say_labels(model: str, labels: Mapping[int, str]) -> None:
    if list(labels.values()) == [f"LABEL_{k}" for k in labels]:  # transformers' own, where none were given
        return
    names = [f"{k} is {labels[k]!r}" for k in sorted(labels)]
    more = ", ..." if len(names) > _SHOWN_LABELS else ""
    log(f"outputs of {model}: {', '.join(names[:_SHOWN_LABELS])}{more}")


def _of_processor(model: str, of: Mapping[str, Any]) -> ImageTransform:
    """What the entries of an image processor mean."""
    size, crop = dict(of.get("size") or {}), dict(of.get("crop_size") or {})
    shorter = size.get("shortest_edge")
    if not of.get("do_resize") or (shorter is None and size.get("height") != size.get("width")) or not size:
        raise UserError(f"the image processor of {model} gives images of unequal size: write a module:factory")
    resize = int(shorter or size["height"])
    image_size, keep_aspect = resize, shorter is not None
    if of.get("do_center_crop"):
        if crop.get("height") != crop.get("width"):
            raise UserError(f"the image processor of {model} crops images to no square: write a module:factory")
        image_size = int(crop["height"])
    elif of.get("crop_pct") and keep_aspect:  # ConvNeXt: large images are not cropped
        keep_aspect = image_size < 384
        resize = int(image_size / of["crop_pct"]) if keep_aspect else image_size
    normalizes = of.get("do_normalize")
    mean, std = (of["image_mean"], of["image_std"]) if normalizes else ((0.0,) * 3, (1.0,) * 3)
    if len(mean) != 3:
        raise UserError(f"{model} takes images with {len(mean)} channels: choose a network for RGB images")
    white = 255 * (of["rescale_factor"] if of.get("do_rescale") else 1)
    return ImageTransform(
        image_size=image_size,
        resize=resize,
        keep_aspect=keep_aspect,
        interpolation=Image.Resampling(of.get("resample", Image.Resampling.BILINEAR)).name.lower(),
        mean=tuple(value / white for value in mean),
        std=tuple(value / white for value in std),
        bgr=bool(of.get("do_flip_channel_order")),
    )


def _difference(processor: Any, transform: ImageTransform) -> float:
    """Mean difference between the inputs of both for one image that is no square, in standard deviations."""
    coarse = np.random.default_rng(0).integers(0, 256, (12, 17, 3), dtype=np.uint8)
    image = Image.fromarray(coarse).resize((340, 240))
    theirs = torch.as_tensor(processor(image, return_tensors="pt")["pixel_values"][0])
    ours = transform.normalized([np.array(transform.evaluation()(image)).transpose(2, 0, 1)])[0]
    return float((ours - theirs).abs().mean() / ours.std()) if ours.shape == theirs.shape else float("inf")


@contextmanager
def _silent(transformers: Any) -> Iterator[None]:
    """A context in which transformers shows no notes and no progress bars: what matters is said here."""
    logging = transformers.utils.logging
    verbosity, had_bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    try:
        logging.set_verbosity_error()
        logging.disable_progress_bar()
        yield
    finally:
        logging.set_verbosity(verbosity)
        if had_bars:
            logging.enable_progress_bar()
