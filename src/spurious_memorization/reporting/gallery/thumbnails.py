"""Images as thumbnails, and the choice of the images that are shown."""

from __future__ import annotations

import base64
import io

from ...datasets.samples import Dataset
from ...datasets.sources import Images, Noun
from ...errors import UserError
from .changed_predictions import ChangedPredictions


def thumbnail(data: Dataset, sample: int, side: int) -> str:
    """An image as a JPEG of at most `side` pixels, in a data URI."""
    if not isinstance(data.source, Images):
        raise UserError("there are no images to show: the data are no image files")
    small = data.source.open(sample)
    small.thumbnail((side, side))
    buffer = io.BytesIO()
    small.save(buffer, format="JPEG", quality=80, optimize=True)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def changed_text(changed: ChangedPredictions, split: str, noun: Noun) -> str:
    """ "The prediction changes for 18 of 1600 training images"."""
    words = {"train": "training", "val": "validation", "test": "test"}
    n = len(changed.sample)
    return f"the prediction changes for {n} of {sum(changed.measured.values())} {words[split]} {noun}s"
