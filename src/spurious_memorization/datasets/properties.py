"""Properties of all images or texts of a data set, and the data sets that need no attribute."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from ..errors import UserError
from .file_facts import in_threads
from .folder import assemble, own_columns, read_table
from .images import to_rgb
from .property_measures import Property, file_properties, measured_properties
from .property_values import property_values
from .samples import Dataset, checked_dataset
from .settings import FOUND_COLUMNS, NO_ATTRIBUTE, Columns
from .sources import Images
from .tables import AnnotatedTable
from .texts import Texts
from .word_properties import word_properties


def image_properties(data: Dataset | str | Path) -> pd.DataFrame:
    """Simple properties of every image, such as brightness, size and format. No network is needed.

    Pixels are measured on images of at most 1024 pixels a side: larger ones are shrunk by a whole factor.

    Arguments:
        data: a data set of image files, or its folder. The table of a folder needs no attribute column here.

    Returns:
        One row per sample, with its index in the data set as index. Numbers: brightness, contrast, sharpness,
        colorfulness, border_brightness, border_variation, mark_top_left, mark_top_right, mark_bottom_left,
        mark_bottom_right, width, height, aspect_ratio, pixels, file_size, bytes_per_pixel. Names: hue, border_color,
        file_format.

    Raises:
        UserError: an image is missing or can't be read, or the data are tensors.

    Example:
        ```python
        properties = sm.image_properties("my_images/")
        sm.property_associations("my_images/", properties)
        ```
    """
    source = labeled_data(data).source
    if not isinstance(source, Images):
        raise UserError("the data are tensors or texts: give a folder of images, or see text_properties")

    def measure(index: int) -> dict[str, Property]:
        return _measured(source, index)

    rows = in_threads(range(len(source.paths)), measure, "measuring")
    return pd.DataFrame(rows, index=pd.RangeIndex(len(rows), name="sample"))


def text_properties(data: Dataset | str | Path) -> pd.DataFrame:
    """The words of every text, and their number. No network is needed.

    A word is a run of letters, digits and apostrophes, in lower case. Only words that are in at least 1 % of the
    training texts and not in all of them count; of these, the 500 words that are in most of them.

    Arguments:
        data: a data set of texts, or its folder. The table of a folder needs no attribute column here.

    Returns:
        One row per sample, with its index in the data set as index: words (their number), and for each word whether the
        text has it, such as word_never. Of a second text: pair_words, pair_word_never.

    Raises:
        UserError: the data are not texts.

    Example:
        ```python
        properties = sm.text_properties("my_texts/")
        sm.property_associations("my_texts/", properties)
        ```
    """
    data = labeled_data(data)
    if not isinstance(data.source, Texts):
        raise UserError("the data are no texts: the properties of images are found by image_properties")
    return word_properties(data.source, data.train.index)


def properties_of(data: Dataset) -> pd.DataFrame:
    """The properties of images, or of texts. Raises the errors of `image_properties`."""
    return text_properties(data) if isinstance(data.source, Texts) else image_properties(data)


def labeled_data(data: Dataset | str | Path) -> Dataset:
    """A data set whose labels and splits are needed, but no attribute.

    Arguments:
        data: the data set, or its folder.

    Raises:
        UserError: as for `read_data`, but not for a missing attribute.
    """
    if not isinstance(data, str | Path):
        return checked_dataset(data)
    return without_attribute(Path(data), read_table(Path(data)))


def without_attribute(root: Path, table: AnnotatedTable, columns: Columns = FOUND_COLUMNS) -> Dataset:
    """The data set of a table that was read from `root`, in which all samples have the same attribute.

    Without splits in the table, each class is split; if there is a default attribute, each group, as by `read_data`.
    """
    others = own_columns(table)
    if "split" not in table.frame and ("a" in others or len(others) == 1):
        return assemble(root, table, attribute=None, image_size=None, minority=(), split_seed=0, columns=columns)
    return assemble(root, table, attribute=NO_ATTRIBUTE, image_size=None, minority=(), split_seed=0, columns=columns)


def property_table(data: Dataset, properties: pd.DataFrame, table: AnnotatedTable | None = None) -> pd.DataFrame:
    """A table with a column per property, which `read_data` reads as `metadata.csv`.

    Arguments:
        data: the data set.
        properties: as `image_properties` or `text_properties` returns them.
        table: the data set's own table, whose attribute columns are kept.

    Returns:
        One row per sample: path, the texts if there are any, y (name of the class), the attribute columns of `table`
        that are no properties, split, and each property: low, mid or high for numbers, cut at the thirds of the
        training split; otherwise its value.
    """
    assert isinstance(data.source, Images | Texts), "tensors have no paths"
    texts = {} if table is None else {name: table.frame[name].to_numpy() for name in table.texts}
    own = {} if table is None else {name: table.frame[name].to_numpy() for name in own_columns(table)}
    values = property_values(data, properties)
    return pd.DataFrame(
        {
            "path": data.source.paths,
            **texts,
            "y": np.array(data.groups.classes, object)[data.y],
            **{name: column for name, column in own.items() if name not in values},
            "split": data.split,
            **{name: of_property.of_samples() for name, of_property in values.items()},
        }
    )


def _measured(source: Images, index: int) -> dict[str, Property]:
    n_bytes = source.files.size(source.paths[index])
    with source.opened(index) as image:
        rgb = to_rgb(image)
        file_format = image.format or "unknown"
    return {
        **measured_properties(rgb),
        **file_properties(rgb.width, rgb.height, n_bytes or 0, file_format),
    }
