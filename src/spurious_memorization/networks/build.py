"""Networks by name: any timm classifier, one of another library, or a user's own `module:factory`."""

from __future__ import annotations

import difflib
import inspect
import math
from collections.abc import Mapping
from types import ModuleType
from typing import Any

import timm
from pydantic import Field
from timm.data.config import resolve_data_config
from timm.models import PretrainedCfg
from torch import Tensor, nn

from ..console import log
from ..datasets.samples import Dataset
from ..datasets.sources import Images
from ..datasets.texts import Texts
from ..datasets.transforms import INTERPOLATIONS, ImageTransform
from ..errors import UserError, first_line
from ..settings import MAX_IMAGE_SIZE, Settings
from ..user_functions import load_user_function
from . import birds_resnet18, hugging_face, image_towers
from .checked import checked_network, in_float32
from .directions import DirectionSettings, add_directions
from .head import head_names, name_head
from .prototypes import give_prototypes
from .weights import load_exactly

PACKAGED = (birds_resnet18.NAME,)
"""Networks whose weights come with this package. timm knows them once this module is imported."""

MAX_CLASSES = 2**15 - 1
"""Predicted classes are stored as 16-bit integers."""

PAPER_NETWORKS = {
    "deit_tiny": "deit_tiny_patch16_224",
    "deit_small": "deit_small_patch16_224",
    "deit_base": "deit_base_patch16_224",
    "deit_large": "vit_large_patch16_224",
}
"""Short names of You et al. (2025), and timm's names of the same networks. Both use the name resnet50."""

_LIBRARIES = {module.PREFIX: module for module in (hugging_face, image_towers)}
"""{how a name begins: module with `configuration`, `build_network` and `own_transform`}."""


class NetworkSettings(Settings):
    """Everything needed to build a network again.

    Arguments:
        model: a timm name, a short name of the paper, `hf:PATH`, `open_clip:NAME`, or `module:factory`.
        n_classes: number of outputs.
        image_size: side of the square input in pixels; None for the network's own.
        norm_eps: epsilon of the layer norms; None for the network's own. The research code uses 1e-5, timm 1e-6.
        head: module names of the layers that give the logits; if empty, they are found by tracing.
        prototypes: number of prototypes of each class, if an ensemble of them replaces the head; 0 if it does not.
        configuration: of a network `hf:PATH` or `open_clip:NAME`, which can so be built without its folder.
        directions: those that are units, in the outputs of its layers.
    """

    model: str
    n_classes: int = Field(ge=2, le=MAX_CLASSES)
    image_size: int | None = Field(None, ge=1, le=MAX_IMAGE_SIZE)
    norm_eps: float | None = Field(None, gt=0)
    head: tuple[str, ...] = ()
    prototypes: int = Field(0, ge=0)
    configuration: dict[str, Any] | None = None
    directions: tuple[DirectionSettings, ...] = ()

    @property
    def timm_name(self) -> str:
        return PAPER_NETWORKS.get(self.model, self.model)

    @property
    def is_of_hugging_face(self) -> bool:
        return self.model.startswith(hugging_face.PREFIX)

    @property
    def library(self) -> ModuleType | None:
        """The module that builds the network from a configuration, if it is `hf:PATH` or `open_clip:NAME`."""
        return next((module for prefix, module in _LIBRARIES.items() if self.model.startswith(prefix)), None)

    @property
    def is_factory(self) -> bool:
        of_library = ("hf-hub:", "hf_hub:", "local-dir:", *_LIBRARIES)
        return ":" in self.model and not self.model.startswith(of_library)

    def with_configuration(self) -> NetworkSettings:
        """The same settings, with the configuration of a network `hf:PATH` or `open_clip:NAME`."""
        if self.library is None or self.configuration is not None:
            return self
        return self.model_copy(update={"configuration": self.library.configuration(self.model)})


def build(settings: NetworkSettings, state: dict[str, Tensor] | None = None) -> nn.Module:
    """Build a network, with random weights unless a state dict is given.

    Arguments:
        settings: which network.
        state: a state dict of the same architecture. A head that it lacks, or one with another number of classes,
            starts at random.

    Raises:
        UserError: the name is unknown, or the weights belong to another architecture.
    """
    if settings.is_factory:
        model = _from_factory(settings, state)
    elif settings.library is not None:
        model, _ = _from_library(settings.library, settings, pretrained=False)
        if state is not None:
            _load_state(model, state, settings.model)
    else:
        model = _from_timm(settings, False if state is None else state)
    return _finished(model, settings)


def build_pretrained(settings: NetworkSettings) -> tuple[nn.Module, bool]:
    """Build a network with the weights that its library, its folder or this package has for it.

    Returns:
        The network, and whether these weights include the head. A head with another number of classes starts at random.

    Raises:
        UserError: the name is unknown, there are no such weights, or the download fails.
    """
    if settings.is_factory:
        raise UserError(f"{settings.model} is not one of timm's networks: give its weights as a file")
    if settings.library is not None:
        model, has_head = _from_library(settings.library, settings, pretrained=True)
    else:
        model = _from_timm(settings, True)
        has_head = vars(model)["pretrained_cfg"].get("num_classes") == settings.n_classes
    return _finished(model, settings), has_head


def _finished(model: nn.Module, settings: NetworkSettings) -> nn.Module:
    if settings.norm_eps is not None:
        for module in model.modules():
            if isinstance(module, nn.LayerNorm):
                module.eps = settings.norm_eps
    if settings.prototypes:
        give_prototypes(model, settings.prototypes)
    for directions in settings.directions:
        add_directions(model, directions)
    return model


def with_own_transform(data: Dataset, network: NetworkSettings) -> Dataset:
    """The data with the network's own transform, but for those entries that the data set or the user states.

    Texts are tokenized by the network's own tokenizer.

    A log line says what was decided.

    Raises:
        UserError: as for `own_transform`.
    """
    source = data.source
    if isinstance(source, Texts):
        if not network.is_of_hugging_face:
            raise UserError(f"{network.model} takes no texts: choose a network with a tokenizer, --model hf:PATH")
        tokenization = hugging_face.own_tokenization(network.model, network.configuration or {}, source)
        log(f"texts: tokenizer of {network.model}, {tokenization}")
        return data.with_transform(tokenization)
    if not isinstance(source, Images):
        return data
    if source.transform is not None and source.given is None:
        log(f"transform: of the data set ({source.transform})")
        return data
    transform = own_transform(network, source.given or {})
    others = ", ".join(name for name in source.given or {} if name != "image_size")
    whose = "ImageNet's, as a module:factory states none" if network.is_factory else f"of {network.model}"
    log(f"transform: {whose}{f', with {others} of dataset.yaml' if others else ''} ({transform})")
    return data.with_transform(transform)


def own_transform(settings: NetworkSettings, given: Mapping[str, Any] | None = None) -> ImageTransform:
    """The evaluation transform of a network: that of its timm configuration, at the wanted image size.

    Arguments:
        settings: which network.
        given: entries of the transform that replace the network's own.

    Raises:
        UserError: the network has no image size of its own and none is given (a `module:factory`, or an input that is
            no square), its images have no three colors, or timm's transform is unknown here.
    """
    given = dict(given or {})
    size = given.get("image_size") or settings.image_size
    if settings.is_factory:
        if size is None:
            raise UserError(f"{settings.model} has no image size: give --image-size, or write it to dataset.yaml")
        return ImageTransform(**{"image_size": size, "resize": size, **given})
    if settings.library is not None:
        stored = settings.with_configuration().configuration
        return _resized(settings.library.own_transform(settings.model, stored), size, given)
    of_timm = _pretrained_config(settings.timm_name).to_dict()
    config = resolve_data_config(pretrained_cfg=of_timm)  # type: ignore[no-untyped-call]
    channels, height, width = config["input_size"]
    if (channels, len(config["mean"]), len(config["std"])) != (3, 3, 3):
        raise UserError(f"{settings.model} takes images with {channels} channels: choose a network for RGB images")
    if size is None and height != width:
        raise UserError(f"{settings.model} takes images of {height} x {width}: give a square's side with --image-size")
    size = size or width
    if given.get("resize", size) < size:
        raise UserError(f"resize {given['resize']} in dataset.yaml is below {size}, the size of the input: raise it")
    entries = {
        "image_size": size,
        "resize": math.floor(size / config["crop_pct"]),
        "keep_aspect": config["crop_mode"] != "squash",
        "pad": config["crop_mode"] == "border" and "keep_aspect" not in given,
        "interpolation": config["interpolation"],
        "mean": config["mean"],
        "std": config["std"],
        **given,
    }
    if entries["interpolation"] not in INTERPOLATIONS:
        raise UserError(
            f"{settings.model} resizes images by {entries['interpolation']!r}: write another interpolation, such as "
            "bicubic, to dataset.yaml"
        )
    return ImageTransform(**entries)


def _from_timm(settings: NetworkSettings, pretrained: dict[str, Tensor] | bool) -> nn.Module:
    name = settings.timm_name
    config = _pretrained_config(name)
    options: dict[str, Any] = {"num_classes": settings.n_classes}
    if settings.image_size is not None and config.fixed_input_size:
        options["img_size"] = settings.image_size
    if isinstance(pretrained, dict):
        head = config.classifier if isinstance(config.classifier, str) else (config.classifier or ("",))[0]
        rows = pretrained.get(f"{head}.weight")
        if rows is not None and rows.ndim == 0:
            raise UserError(f"{head}.weight of the weights is a single number: the file is not of {settings.model}")
        options["pretrained_cfg_overlay"] = {
            "state_dict": pretrained,
            "num_classes": len(rows) if rows is not None else settings.n_classes,
            "custom_load": False,
        }
    try:
        model: nn.Module = timm.create_model(name, pretrained=pretrained is not False, **options)
    except Exception as error:
        if pretrained is False:
            raise UserError(f"{settings.model} can't be built: {first_line(error)}") from error
        if pretrained is True:
            raise UserError(
                f"timm's weights for {settings.model} could not be downloaded ({first_line(error)}): "
                "give a file that you have with --weights FILE, or --weights none"
            ) from error
        raise UserError(f"the weights don't fit {settings.model}: {first_line(error)}") from error
    vars(model)["pretrained_cfg"].pop("state_dict", None)
    if settings.head:
        name_head(model, settings.head)
    return model


def _resized(transform: ImageTransform, size: int | None, given: Mapping[str, Any]) -> ImageTransform:
    """A transform for images of another size, with the same share cropped."""
    size = size or transform.image_size
    resize = math.floor(transform.resize * size / transform.image_size)
    return ImageTransform(**{**transform.model_dump(), "image_size": size, "resize": resize, **given})


def _from_library(library: ModuleType, settings: NetworkSettings, pretrained: bool) -> tuple[nn.Module, bool]:
    stored = settings.with_configuration().configuration
    model: nn.Module
    model, has_head = library.build_network(settings.model, stored, settings.n_classes, settings.image_size, pretrained)
    if settings.head:
        name_head(model, settings.head)
    return model, has_head


def _from_factory(settings: NetworkSettings, state: dict[str, Tensor] | None) -> nn.Module:
    factory = load_user_function(settings.model)
    takes_classes = "num_classes" in inspect.signature(factory).parameters
    model = factory(num_classes=settings.n_classes) if takes_classes else factory()
    if not isinstance(model, nn.Module):
        raise UserError(f"{settings.model} gave an object of type {type(model).__name__}, not a torch.nn.Module")
    model = in_float32(checked_network(model))
    if settings.head:
        name_head(model, settings.head)
    _fit_head(model, settings)
    if state is not None:
        _load_state(model, state, settings.model)
    return model


def _load_state(model: nn.Module, state: dict[str, Tensor], name: str) -> None:
    """Load all weights but those of a head that is missing or has another number of classes."""
    own = model.state_dict()
    left_out: set[str] = set()
    for layer in head_names(model):
        parts = {f"{layer}.{part}" for part in ("weight", "bias")} & own.keys()
        there = parts & state.keys()
        left_out |= {key for key in parts if not there or (key in there and state[key].shape != own[key].shape)}
    load_exactly(model, {**state, **{key: own[key] for key in left_out}}, name)


def _fit_head(model: nn.Module, settings: NetworkSettings) -> None:
    """Give a head with another number of outputs `n_classes` of them, at random."""
    for name in head_names(model):
        head, parent = model.get_submodule(name), model.get_submodule(name.rpartition(".")[0])
        new: nn.Module
        if isinstance(head, nn.Linear) and head.out_features != settings.n_classes:
            new = nn.Linear(head.in_features, settings.n_classes, head.bias is not None)
        elif isinstance(head, nn.Conv2d) and head.out_channels != settings.n_classes and head.groups == 1:
            new = nn.Conv2d(
                head.in_channels,
                settings.n_classes,
                head.kernel_size,  # type: ignore[arg-type]
                head.stride,  # type: ignore[arg-type]
                head.padding,  # type: ignore[arg-type]
                head.dilation,  # type: ignore[arg-type]
                bias=head.bias is not None,
            )
        else:
            continue
        log(f"the head {name} of {settings.model} starts at random, with {settings.n_classes} outputs")
        setattr(parent, name.rpartition(".")[2], new)


def _pretrained_config(name: str) -> Any:
    if not timm.is_model(name):
        close = difflib.get_close_matches(name, timm.list_models(), n=3)
        hint = f" (close are {', '.join(close)})" if close else ""
        raise UserError(f"unknown network {name!r}{hint}: use a timm name or module:factory")
    try:
        return timm.get_pretrained_cfg(name, allow_unregistered=True) or PretrainedCfg()
    except RuntimeError as error:
        raise UserError(f"{name}: {first_line(error)}: leave the tag out, or choose one that timm lists") from error
