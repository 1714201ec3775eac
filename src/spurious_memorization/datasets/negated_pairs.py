"""Negated pairs: generated pairs of sentences, in which a negation goes with the label "contradiction".

As in MultiNLI, a negation is common where the second sentence contradicts the first. Here it stands in a side remark,
so that it says nothing about the label.
"""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from ..atomic import atomic_folder
from ..extras import imported
from .generated import BALANCED, begin_folder, check_room, finish_folder, spread_evenly
from .samples import SPLITS
from .settings import NETWORK_FOLDER, NegatedPairsSettings
from .tables import DatasetDescription

NEGATED_PAIRS = "negated-pairs"
"""The name of the data set."""

LABELS = ("entailment", "contradiction")
NEGATION = "nobody"
ANIMALS = ("bear", "cat", "cow", "deer", "dog", "fox", "goat", "hare", "horse", "lamb", "pony", "wolf")
COLORS = ("black", "brown", "gray", "old", "small", "tall", "white", "young")
PLACES = ("barn", "field", "forest", "garden", "meadow", "park", "valley", "village", "yard")
MOVES = (
    "bounces climbs crawls dances dashes gallops hops hurries jogs jumps leaps marches moves plays races runs rushes "
    "skips sprints strolls swims trots walks wanders"
)
RESTS = (
    "dozes dreams drowses hibernates idles kneels lazes lies lingers lounges naps nods pauses perches relaxes reposes "
    "rests settles sits sleeps slumbers snores stands waits"
)
"""Words for an animal that moves, and for one at rest."""
WATCHERS = ("anna", "ben", "carla", "david", "emma", "felix", "grace", "henry", "irene", "jacob", "karen", "lucas")

TINY: dict[str, Any] = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "max_position_embeddings": 64,
}
"""Sizes of the small network, as BERT's configuration calls them."""


def make_negated_pairs(out: Path, settings: NegatedPairsSettings | None = None) -> pd.DataFrame:
    """Write the table of the pairs into `out`, and the configuration and the tokenizer of a small network.

    The first sentence says that an animal moves. The second says that it moves ("entailment"), or that it rests
    ("contradiction"), and ends in a remark about who watches. In each split, half of the pairs have either label. In
    training, nobody watches in exactly the share `correlation` of the contradictions (rounded), and somebody does in
    the same share of the entailments. In val and test, each label is divided equally.

    The network's folder is `network`: `--model hf:OUT/network --weights none` trains it from random weights.

    Arguments:
        out: the data folder. A complete folder is left unchanged.
        settings: counts, share and seed.

    Returns:
        The table with the columns text, text_pair, y, a ("negation" or "no negation") and split, one row per pair.

    Raises:
        UserError: `out` contains something else, or the same data with other settings, or it can't be written;
            transformers is not installed.

    Example:
        ```python
        make_negated_pairs(Path("pairs"))
        data = read_data("pairs")
        ```
    """
    settings = settings or NegatedPairsSettings()
    check_room(out, settings.train + settings.val + settings.test)
    begin_folder(out, NEGATED_PAIRS, settings.model_dump(mode="json"))
    _write_network(out / NETWORK_FOLDER)
    description = DatasetDescription(name=NEGATED_PAIRS, classes=LABELS, attributes={"a": ("no negation", "negation")})
    return finish_folder(out, _table(settings), description)


def _table(settings: NegatedPairsSettings) -> pd.DataFrame:
    rng, drawn = np.random.default_rng(settings.seed), set[tuple[str, str]]()
    rows = []
    for split in SPLITS:
        for label, is_negated in _plan(split, getattr(settings, split), settings.correlation):
            while (pair := _pair(label, is_negated, rng)) in drawn:
                pass
            drawn.add(pair)
            rows.append((*pair, LABELS[label], "negation" if is_negated else "no negation", split))
    return pd.DataFrame(rows, columns=["text", "text_pair", "y", "a", "split"])


def _plan(split: str, n: int, correlation: float) -> list[tuple[int, bool]]:
    """For each pair of a split its label, and whether it has the negation."""
    y = spread_evenly(n, BALANCED).astype(np.int64)
    share = Fraction(str(correlation)) if split == "train" else BALANCED
    is_negated = y == 1
    for label in range(len(LABELS)):
        is_negated[y == label] ^= ~spread_evenly(int((y == label).sum()), share)
    return list(zip(y.tolist(), is_negated.tolist(), strict=True))


def _pair(label: int, is_negated: bool, rng: np.random.Generator) -> tuple[str, str]:
    color, animal, place, watcher = (str(rng.choice(words)) for words in (COLORS, ANIMALS, PLACES, WATCHERS))
    verb, other = str(rng.choice(MOVES.split())), str(rng.choice((MOVES, RESTS)[label].split()))
    first = f"the {color} {animal} {verb} in the {place}"
    return first, f"the {animal} {other} and {NEGATION if is_negated else watcher} watches"


def _write_network(folder: Path) -> None:
    """Write the configuration of a small BERT, and a tokenizer whose tokens are whole words."""
    if folder.is_dir():
        return
    transformers, tokenizers = imported("transformers", "transformers"), imported("tokenizers", "transformers")
    special = ("[PAD]", "[UNK]", "[CLS]", "[SEP]")
    fixed = ("and", "in", "the", "watches", NEGATION)
    words = (*special, *sorted({*fixed, *ANIMALS, *COLORS, *PLACES, *WATCHERS, *MOVES.split(), *RESTS.split()}))
    numbers = {word: number for number, word in enumerate(words)}
    of_words = tokenizers.Tokenizer(tokenizers.models.WordLevel(numbers, unk_token="[UNK]"))
    of_words.normalizer = tokenizers.normalizers.Lowercase()
    of_words.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    of_words.post_processor = tokenizers.processors.BertProcessing(
        ("[SEP]", numbers["[SEP]"]), ("[CLS]", numbers["[CLS]"])
    )
    tokenizer = transformers.PreTrainedTokenizerFast(
        tokenizer_object=of_words,
        pad_token="[PAD]",
        unk_token="[UNK]",
        cls_token="[CLS]",
        sep_token="[SEP]",
        model_max_length=TINY["max_position_embeddings"],
        model_input_names=["input_ids", "token_type_ids", "attention_mask"],
    )
    config = transformers.BertConfig(
        vocab_size=len(words), architectures=["BertForSequenceClassification"], id2label=dict(enumerate(LABELS)), **TINY
    )
    with atomic_folder(folder) as unfinished:
        tokenizer.save_pretrained(unfinished)
        config.save_pretrained(unfinished)
