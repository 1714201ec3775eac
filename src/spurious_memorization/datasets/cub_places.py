"""Waterbirds made from CUB-200-2011 and Places: birds are cut out by their masks and put on land or water.

The recipe is that of Sagawa et al. (2020), Distributionally Robust Neural Networks. In addition, the shares are exact
and everything random depends on a seed.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path, PurePosixPath
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from PIL import Image, ImageOps

from ..console import log
from ..errors import UserError
from .generated import BALANCED, begin_folder, finish_folder, save_images, spread_evenly, waterbirds_table
from .image_files import Folder
from .images import opened_image, to_rgb
from .samples import SPLITS
from .settings import CubPlacesSettings
from .tables import leads_outside, read_frame

WATERBIRDS = (
    "albatross",
    "auklet",
    "cormorant",
    "frigatebird",
    "fulmar",
    "gull",
    "jaeger",
    "kittiwake",
    "pelican",
    "puffin",
    "tern",
    "gadwall",
    "grebe",
    "mallard",
    "merganser",
    "guillemot",
    "pacific loon",
)
"""Seabirds, then waterfowl, as chosen by Sagawa et al. (2020)."""

PLACES = {
    "land": {
        "bamboo_forest": ("b/bamboo_forest", "bamboo_forest"),
        "forest/broadleaf": ("f/forest/broadleaf", "forest/broadleaf", "forest-broadleaf", "forest_broadleaf"),
    },
    "water": {
        "ocean": ("o/ocean", "ocean"),
        "lake/natural": ("l/lake/natural", "lake/natural", "lake-natural", "lake_natural"),
    },
}
"""The Places categories of each background, each with the possible names of its folder."""

CUB_FILES = {
    "images.txt": ("img_id", "img_filename"),
    "image_class_labels.txt": ("img_id", "class_id"),
    "classes.txt": ("class_id", "class_name"),
    "train_test_split.txt": ("img_id", "is_training"),
}
IMAGE_ENDINGS = (".jpg", ".jpeg", ".png")
MAX_NAMED = 5


def make_waterbirds(out: Path, settings: CubPlacesSettings) -> pd.DataFrame:
    """Paste CUB's birds onto Places' backgrounds, save them in `out` in Waterbirds' layout, then write its table.

    CUB's official test images become the test split. The share `val_share` of its training images of each label
    becomes the val split. In training, exactly the share `correlation` of each label (rounded) has the matching
    background; in val and test, half of each label has it. The background is cropped and resized to the size of the
    bird image. Each background is used once. If there are too few, a background may repeat, but only within one split.

    Arguments:
        out: the data folder. An incomplete folder of an interrupted call is continued; a complete one is unchanged.
        settings: sources, shares, labels and seed.

    Returns:
        The table in Waterbirds' columns: img_id, img_filename, y (1: waterbird), split (0 train, 1 val, 2 test),
        place (1: water) and place_filename (relative to the Places folder); one row per image.

    Raises:
        UserError: files or folders are missing or broken (the message lists all files and folders, but only the first
            few images); `out` contains something else, or the same data with other settings, or it can't be written.

    Example:
        ```python
        make_waterbirds(Path("waterbirds"), CubPlacesSettings(cub="CUB_200_2011", places="places365"))
        data = read_data("waterbirds")
        ```
    """
    cub = _find_cub(settings.cub)
    folders, missing_places = _find_places(settings.places)
    if missing := [*cub.missing(), *missing_places]:
        raise UserError(f"missing: {'; '.join(missing)}: add them, or correct --cub or --places")
    plan = _plan(_read_cub(cub), settings)
    backgrounds = {place: _images_below(settings.places, folders[place]) for place in PLACES}
    plan["place_filename"] = _choose_backgrounds(plan, backgrounds, settings.seed)
    made_from = settings.model_dump(mode="json", exclude={"cub", "places"})
    counts = {f"{place}_backgrounds": len(files) for place, files in backgrounds.items()}
    begin_folder(out, "waterbirds", {**made_from, "birds": len(plan), **counts})

    def draw(row: Any) -> Image.Image:
        mask = cub.masks / PurePosixPath(row.path).with_suffix(".png")
        return _pasted(cub.root / "images" / row.path, mask, settings.places / row.place_filename)

    save_images(out, list(plan.itertuples()), draw, label="pasting birds", seconds_each=0.03)
    return finish_folder(out, waterbirds_table(plan), None)


def is_waterbird(class_name: str, labels: Literal["species", "published"] = "species") -> bool:
    """Whether a CUB class such as "001.Black_footed_Albatross" counts as a waterbird.

    Arguments:
        class_name: number and name of the class, as in CUB's classes.txt.
        labels: "species" searches for whole words. "published" also accepts parts of words, as in the published data
            set.
    """
    name = class_name.partition(".")[2].replace("_", " ").lower()
    if labels == "published":
        return any(waterbird in name for waterbird in WATERBIRDS)
    return any(f" {waterbird} " in f" {name} " for waterbird in WATERBIRDS)


@dataclass(frozen=True)
class _Cub:
    root: Path
    masks: Path

    def missing(self) -> list[str]:
        files = [str(self.root / name) for name in CUB_FILES if not (self.root / name).is_file()]
        folders = [f"{folder}/" for folder in (self.root / "images", self.masks) if not folder.is_dir()]
        return files + folders


def _find_cub(folder: Path) -> _Cub:
    inner = folder / "CUB_200_2011"
    root = inner if inner.is_dir() and not (folder / "images.txt").is_file() else folder
    sibling = root.absolute().parent / "segmentations"
    inside = root / "segmentations"
    return _Cub(root, sibling if sibling.is_dir() and not inside.is_dir() else inside)


def _find_places(folder: Path) -> tuple[dict[str, list[Path]], list[str]]:
    """The category folders of each background, and the names of the missing ones."""
    found: dict[str, list[Path]] = {place: [] for place in PLACES}
    missing = []
    for place, categories in PLACES.items():
        for variants in categories.values():
            places = [folder / top / variant for top in ("", "data_large", "train") for variant in variants]
            existing = next((path for path in places if path.is_dir()), None)
            if existing is None:
                missing.append(f"{folder / variants[0]}/ (or {', '.join(variants[1:])})")
            elif not any(_is_image(path) for path in existing.iterdir()):
                missing.append(f"images in {existing}/")
            else:
                found[place].append(existing)
    return found, missing


def _images_below(root: Path, folders: Iterable[Path]) -> list[str]:
    """The images in these folders as paths relative to `root`, sorted."""
    return sorted(p.relative_to(root).as_posix() for folder in folders for p in folder.iterdir() if _is_image(p))


def _is_image(path: Path) -> bool:
    return path.suffix.lower() in IMAGE_ENDINGS and not path.name.startswith(".")


def _read_cub(cub: _Cub) -> pd.DataFrame:
    """One row per bird: path (below images/), class_name and is_training.

    Raises:
        UserError: the tables don't list the same images, or images or masks are missing.
    """
    images, labels, classes, official = (
        read_frame(cub.root / file, sep=" ", header=None, names=list(columns)) for file, columns in CUB_FILES.items()
    )
    birds = images.merge(labels, "left", "img_id").merge(classes, "left", "class_id").merge(official, "left", "img_id")
    if len(birds) != len(images) or birds.isna().to_numpy().any():
        raise UserError(
            f"{', '.join(CUB_FILES)} in {cub.root} don't list the same images and classes: unpack CUB again"
        )
    if outside := next((path for path in birds["img_filename"] if leads_outside(path)), None):
        raise UserError(
            f"{cub.root / 'images.txt'} names {outside!r}, which leads outside its folder: unpack CUB again"
        )
    wanted = [cub.root / "images" / path for path in birds["img_filename"]]
    wanted += [cub.masks / PurePosixPath(path).with_suffix(".png") for path in birds["img_filename"]]
    if missing := [str(path) for path in wanted if not path.is_file()]:
        more = f" and {len(missing) - MAX_NAMED} more" if len(missing) > MAX_NAMED else ""
        raise UserError(f"missing: {', '.join(missing[:MAX_NAMED])}{more}: unpack CUB's images and segmentations again")
    return birds.rename(columns={"img_filename": "path"})[["path", "class_name", "is_training"]]


def _plan(birds: pd.DataFrame, settings: CubPlacesSettings) -> pd.DataFrame:
    """One row per bird: path, y, split and place."""
    y = np.array([is_waterbird(name, settings.labels) for name in birds["class_name"]], dtype=np.int64)
    split = np.where(birds["is_training"] == 1, "train", "test").astype("<U5")
    place = np.empty_like(y)
    for label in (0, 1):
        members = np.flatnonzero((y == label) & (split == "train"))
        shuffled = np.random.default_rng([settings.seed, 0, label]).permutation(members)
        split[shuffled[: round(len(members) * settings.val_share)]] = "val"
        for number, name in enumerate(SPLITS):
            share = Fraction(str(settings.correlation)) if name == "train" else BALANCED
            members = np.flatnonzero((y == label) & (split == name))
            shuffled = np.random.default_rng([settings.seed, 1, label, number]).permutation(members)
            place[shuffled] = np.where(spread_evenly(len(members), share), label, 1 - label)
    return pd.DataFrame({"path": birds["path"], "y": y, "split": split, "place": place})


def _choose_backgrounds(plan: pd.DataFrame, backgrounds: dict[str, list[str]], seed: int) -> NDArray[np.str_]:
    """A background for each row, drawn without replacement.

    If there are too few backgrounds, they repeat within a split, but two splits never share one.

    Raises:
        UserError: there are fewer backgrounds than splits that need one.
    """
    chosen = np.full(len(plan), "", dtype=object)
    for place, (name, files) in enumerate(backgrounds.items()):
        pool = np.random.default_rng([seed, 2, place]).permutation(np.array(files, dtype=object))
        rows = [np.flatnonzero((plan["place"] == place) & (plan["split"] == split)) for split in SPLITS]
        rows = [members for members in rows if len(members)]
        needed = sum(map(len, rows))
        if len(pool) < len(rows):
            raise UserError(
                f"the Places folder has only {len(pool)} images of {name}: at least {len(rows)} are needed, add some"
            )
        if len(pool) < needed:
            log(f"only {len(pool)} images of {name} for {needed} birds: backgrounds repeat, but only within a split")
        start = 0
        for number, members in enumerate(rows):
            later = len(rows) - number - 1
            share = len(members) if len(pool) >= needed else max(1, len(pool) * len(members) // needed)
            part = pool[start : start + min(share, len(pool) - start - later)]
            chosen[members] = np.resize(part, len(members))
            start += len(part)
    return chosen.astype(str)


def _pasted(bird: Path, mask: Path, background: Path) -> Image.Image:
    """The bird, cut out by its mask, on the background, which is cropped and resized to the size of the bird image.

    Raises:
        UserError: a file can't be decoded, or image and mask have different sizes.
    """
    image, shape, scene = _opened(bird, "RGB"), _opened(mask, "L"), _opened(background, "RGB")
    if image.size != shape.size:
        raise UserError(
            f"{mask} has the size {shape.size}, but its image has {image.size}: unpack CUB's segmentations again"
        )
    return Image.composite(image, ImageOps.fit(scene, image.size, Image.Resampling.BICUBIC), shape)


def _opened(path: Path, mode: str) -> Image.Image:
    try:
        with opened_image(Folder(path.parent), path.name) as image:
            return to_rgb(image).convert(mode)
    except UserError as error:
        raise UserError(f"{path} can't be read ({error}): replace the file") from error
