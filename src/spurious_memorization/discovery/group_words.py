"""Words for candidate groups: which words of a list fit the images of a group better than the others of its class."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from ..atomic import write_text
from ..console import log
from ..datasets.candidate_groups import words_file
from ..datasets.folder import read_data
from ..datasets.sources import Images
from ..errors import UserError
from ..input_files import read_text, shown
from ..networks.clip import image_embeddings, load_clip, text_embeddings
from ..networks.forward import choose_device
from ..settings import Execution
from ..statistics.word_associations import word_associations
from .default_words import WORDS
from .settings import WordSettings

PROMPT = "a photo with {}"

MAX_WORDS = 1000
MAX_BYTES = 100_000


def group_words(
    folder: str | Path,
    groups: str | Path,
    settings: WordSettings | None = None,
    *,
    execution: Execution | None = None,
) -> pd.DataFrame:
    """Find words for candidate groups by CLIP (Radford et al. 2021), on the training images.

    The result is stored beside the table, as groups_words.csv, and the report shows it with the images of each group.

    Arguments:
        folder: the data folder.
        groups: the table of candidate groups.
        settings: the network, the words, and the permutations.
        execution: device, and batch size of evaluation.

    Returns:
        One row per group and word, as `word_associations` makes it: group, n, word, difference, p, p_adjusted,
        fits_better.

    Raises:
        UserError: the data are no images, or can't be read; the network can't be loaded; the list of words is not
            usable.

    Example:
        ```python
        found = sm.group_words("birds", "groups.csv", sm.WordSettings(clip="my_clip/"))
        found.query("fits_better").groupby("group").head(5)
        ```
    """
    settings, execution = settings or WordSettings(), execution or Execution()
    words = WORDS if settings.words is None else _read_words(settings.words)
    data = read_data(folder, attribute=str(groups))
    if not isinstance(data.source, Images):
        raise UserError(f"{folder} holds texts, and CLIP compares images: `spurmem discover` shows the words of texts")
    clip = load_clip(settings.clip, choose_device(execution.device))
    train = data.train
    log(f"comparing {len(train):,} training images with {len(words)} words")
    images = image_embeddings(clip, data.source, train.index, execution.samples_per_pass)
    texts = text_embeddings(clip, [PROMPT.format(word) for word in words])
    found = word_associations(
        images @ texts.T,
        words,
        data.groups,
        train.y,
        data.a[train.index],
        permutations=settings.permutations,
        seed=settings.seed,
    )
    if found.empty:
        raise UserError(f"{shown(groups)}: no class has two groups in training, so there is nothing to compare")
    write_text(words_file(Path(groups)), found.to_csv(index=False))
    return found


def _read_words(file: Path) -> tuple[str, ...]:
    """The words of a file, one a line, without repetitions.

    Raises:
        UserError: the file can't be read, or holds no words or too many.
    """
    lines = (" ".join(line.split()) for line in read_text(file, max_bytes=MAX_BYTES).splitlines())
    words = tuple(dict.fromkeys(line for line in lines if line))
    if not 0 < len(words) <= MAX_WORDS:
        raise UserError(f"{shown(file)} holds {len(words)} words: write 1 to {MAX_WORDS}, one a line")
    return words
