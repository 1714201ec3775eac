"""Texts, one or two per sample, as inputs of a network: numbers of tokens, of the same length for all samples."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import BaseModel, ConfigDict, Field
from torch import Tensor

from ..errors import UserError, first_line
from ..extras import imported
from ..resources import check_memory

MAX_TOKENS = 128
"""The tokens of a text, at most, if a user gives no other number."""

CHUNK = 1000
"""Texts that are tokenized at once."""


class Tokenization(BaseModel):
    """How texts become inputs, {name: [texts, length]}.

    Arguments:
        tokenizer: folder, by its full path, or hub name of a tokenizer of transformers.
        digest: of the tokenizer.
        length: tokens of every text. Longer texts are cut, shorter ones are padded, so that the answer for a text does
            not depend on the other texts of its batch.
        names: of the inputs, as the network's forward calls them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    tokenizer: str
    digest: str
    length: int = Field(ge=1)
    names: tuple[str, ...]

    def inputs(self, texts: Sequence[str], pairs: Sequence[str] | None = None) -> dict[str, Tensor]:
        """The inputs for these texts, {name: int32, [texts, length]}.

        Arguments:
            texts: the texts.
            pairs: the second text of each sample, if there are two.

        Raises:
            UserError: the tokenizer is missing or has changed, or there is not enough memory.
        """
        tokenizer = self.load()
        size = 4 * len(texts) * self.length * len(self.names)
        check_memory(size, f"{len(texts):,} texts of {self.length} tokens", "use a smaller --max-tokens")
        parts = [
            tokenizer(*part, truncation=True, max_length=self.length, padding="max_length", return_tensors="np")
            for part in chunks(texts, pairs)
        ]
        return {
            name: torch.from_numpy(np.concatenate([part[name] for part in parts]).astype(np.int32))
            for name in self.names
        }

    def load(self) -> Any:
        """The tokenizer.

        Raises:
            UserError: it is missing or has changed.
        """
        tokenizer = load_tokenizer(self.tokenizer)
        if digest_of(tokenizer) != self.digest:
            raise UserError(f"the tokenizer in {self.tokenizer} is not the one that was used before: put it back")
        return tokenizer

    def __str__(self) -> str:
        """As a log line says it."""
        return f"{self.length} tokens a text, as {', '.join(self.names)}"


@dataclass(frozen=True, eq=False)
class Texts:
    """Texts of a table. They are tokenized all at once, when the first is needed.

    Arguments:
        root: the data folder.
        paths: the name of each sample: the number of its row, or its entry in a column `path`.
        texts: the text of each sample.
        pairs: its second text; None if there is only one.
        max_tokens: tokens of a text, at most; None for `MAX_TOKENS`.
        tokenization: from text to input; None until a network is chosen.
    """

    root: Path
    paths: tuple[str, ...]
    texts: tuple[str, ...]
    pairs: tuple[str, ...] | None = None
    max_tokens: int | None = None
    tokenization: Tokenization | None = None

    def load(self, index: NDArray[np.int64]) -> Mapping[str, Tensor]:
        return self._at(torch.tensor(index))

    def load_augmented(self, index: int, seed: int) -> Mapping[str, Tensor]:
        return self._at(index)

    def tokenized(self, texts: Sequence[str], pairs: Sequence[str] | None) -> dict[str, Tensor]:
        """The inputs for any texts, as for these.

        Raises:
            UserError: no network is chosen, or as for `Tokenization.inputs`.
        """
        if self.tokenization is None:
            raise UserError("texts are tokenized by the network's own tokenizer: choose a network, --model hf:PATH")
        return self.tokenization.inputs(texts, pairs)

    def parts(self, index: int) -> tuple[str, ...]:
        """The text of a sample, or its two texts."""
        return tuple(part[index] for part in (self.texts, self.pairs) if part is not None)

    def fingerprint(self) -> str:
        digest = hashlib.sha256()
        for part in (self.paths, self.texts, self.pairs or ()):
            digest.update(json.dumps(part).encode())
        return digest.hexdigest()

    def _at(self, index: int | Tensor) -> Mapping[str, Tensor]:
        return {name: values[index].long() for name, values in self._inputs.items()}

    @cached_property
    def _inputs(self) -> dict[str, Tensor]:
        return self.tokenized(self.texts, self.pairs)


def chunks(texts: Sequence[str], pairs: Sequence[str] | None) -> Iterator[tuple[list[str], ...]]:
    """The arguments of a tokenizer for the first texts, the next ones, and so on."""
    for start in range(0, len(texts), CHUNK):
        yield tuple(list(part[start : start + CHUNK]) for part in (texts, pairs) if part is not None)


def load_tokenizer(place: str) -> Any:
    """The tokenizer in a folder, or of this name on the hub.

    Raises:
        UserError: transformers is not installed; there is no tokenizer that it can read; it can't pad texts.
    """
    transformers = imported("transformers", "transformers")
    try:
        tokenizer = transformers.AutoTokenizer.from_pretrained(place, trust_remote_code=False)
    except Exception as error:  # a missing or broken file can raise anything
        raise UserError(
            f"{place} has no tokenizer that transformers can read ({first_line(error)}): name a folder that the "
            "tokenizer's save_pretrained wrote, too"
        ) from error
    if tokenizer.pad_token is None:
        raise UserError(f"the tokenizer in {place} has no padding token: set its pad_token, and save it again")
    return tokenizer


def digest_of(tokenizer: Any) -> str:
    """A digest of a tokenizer as it was loaded."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    content = json.dumps(sorted(tokenizer.get_vocab().items())) if backend is None else backend.to_str()
    return hashlib.sha256(content.encode()).hexdigest()
