"""Files that this tool has stored: each is read as it was written, or an error names it and says what to do."""

from __future__ import annotations

import errno
import json
import os
import stat
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal, NoReturn, TypeVar

import pandas as pd
import safetensors.torch
import torch
from pandas.api import types
from pydantic import BaseModel, ValidationError
from torch import Tensor

from .atomic import atomic_write
from .errors import UserError, first_line

ColumnKind = Literal["count", "whole", "number", "share", "text", "text or none", "flag", "flag or none"]
"""What a column holds. A count is a whole number from 0, a share is from 0 to 1 or missing."""

Columns = Mapping[str, ColumnKind]

Tensors = dict[str, Tensor]

M = TypeVar("M", bound=BaseModel)

CHECKSUMS = "checksums"
"""The entry of the metadata of a safetensors file that holds a checksum per tensor."""

BROKEN_OR_OTHER = "broken or from another version of spurmem"


class BrokenFileError(ValueError):
    """What is wrong with the content of a file."""


class StoredFileError(UserError):
    """A file that this tool has stored is missing, broken, or from another version."""


def is_stored(file: Path) -> bool:
    """Whether anything of this name exists, even if it can't be read."""
    try:
        file.lstat()
    except (FileNotFoundError, NotADirectoryError, ValueError):
        return False
    except OSError as error:
        return error.errno != errno.ENAMETOOLONG
    return True


@contextmanager
def reading(file: Path, remedy: str, *, otherwise: str = "broken") -> Iterator[None]:
    """Read and check a file. Whatever goes wrong becomes an error of one line.

    Arguments:
        file: which is read.
        remedy: what to do if it is missing or broken.
        otherwise: what the file is if its content is wrong.

    Raises:
        UserError: the file is missing, no regular file, not readable, or its content is broken.
    """
    try:
        if not stat.S_ISREG(file.stat().st_mode):
            raise BrokenFileError("it is no regular file")
        yield
    except UserError:
        raise
    except FileNotFoundError as error:
        raise StoredFileError(f"{file} does not exist: {remedy}") from error
    except PermissionError as error:
        raise StoredFileError(f"{file} can't be read ({error.strerror}): change its permissions") from error
    except Exception as error:  # a broken file can raise any exception
        reason = os.strerror(error.errno) if isinstance(error, OSError) and error.errno else first_line(error)
        raise StoredFileError(f"{file} is {otherwise}: {remedy} ({reason})") from error


def read_json(file: Path, remedy: str, *, may_hold_nan: bool = False, otherwise: str = "broken") -> dict[str, Any]:
    """Read a JSON object.

    Arguments:
        file: which is read.
        remedy: what to do if it is missing or broken.
        may_hold_nan: whether numbers that are not finite are right.
        otherwise: what the file is if its content is wrong.

    Raises:
        UserError: see `reading`; the file holds something else.
    """
    with reading(file, remedy, otherwise=otherwise):
        text = file.read_text(encoding="utf-8")
        content = json.loads(text, parse_constant=None if may_hold_nan else _not_finite)
        if not isinstance(content, dict):
            raise BrokenFileError(f"it holds a {type(content).__name__} instead of named entries")
        return content


def checked_record(file: Path, content: Mapping[str, Any], model: type[M], remedy: str) -> M:
    """The content of a JSON file as a model.

    Raises:
        UserError: an entry is missing, unknown, or of another type.
    """
    try:
        return model.model_validate_json(json.dumps(content))
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        unknown = [e["loc"] for e in error.errors(include_url=False) if e["type"] == "extra_forbidden"]
        if unknown:
            names = ", ".join(".".join(map(str, place)) for place in unknown[:3])
            raise StoredFileError(
                f"{file} is from another version of spurmem, it has entries that this one doesn't know ({names}): "
                "use the version that wrote it"
            ) from error
        place = ".".join(map(str, first["loc"])) or "all of it"
        raise StoredFileError(f"{file} is {BROKEN_OR_OTHER}: {remedy} ({place}: {first['msg']})") from error


def read_frame(
    file: Path,
    columns: Columns,
    remedy: str,
    *,
    only: Sequence[str] | None = None,
    variants: Sequence[int] | None = None,
    key: Sequence[str] = (),
    may_be_empty: bool = False,
) -> pd.DataFrame:
    """Read a Parquet file and check its columns.

    Arguments:
        file: which is read. Pages have checksums, so that changed bytes are found.
        columns: that it must have, with what they hold.
        remedy: what to do if it is broken.
        only: names of the only columns to read.
        variants: the only values of the column `variant` whose rows are read.
        key: columns whose values name a row. They are checked where all of them are read.
        may_be_empty: whether a file without rows is right.

    Raises:
        UserError: see `reading`; a column is missing or holds something else; there are no rows; two rows have the
            same key.
    """
    rows = None if variants is None else [("variant", "in", list(variants))]
    with reading(file, remedy):
        frame = pd.read_parquet(
            file, columns=None if only is None else list(only), filters=rows, page_checksum_verification=True
        )
        if frame.empty and not may_be_empty and variants is None:
            raise BrokenFileError("it has no rows")
        check_columns(frame, {name: kind for name, kind in columns.items() if only is None or name in only})
        if key and set(key) <= set(frame) and frame.duplicated(list(key)).any():
            raise BrokenFileError(f"it has two rows with the same {', '.join(key)}")
        return frame


def check_columns(frame: pd.DataFrame, columns: Columns) -> None:
    """Check that a frame has these columns.

    Raises:
        BrokenFileError: a column is missing, or holds something else.
    """
    for name, kind in columns.items():
        if name not in frame:
            raise BrokenFileError(f"it has no column {name!r}")
        if not _holds(frame[name], kind):
            raise BrokenFileError(f"its column {name!r} must hold a {kind} in every row")


def write_tensors(file: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write tensors as safetensors, atomically, with a checksum of each."""
    plain = {name: values.detach().cpu().contiguous() for name, values in tensors.items()}
    checksums = json.dumps({name: _checksum(values) for name, values in plain.items()})
    with atomic_write(file) as temporary:
        safetensors.torch.save_file(plain, temporary, metadata={**(metadata or {}), CHECKSUMS: checksums})


def read_tensors(file: Path, remedy: str) -> tuple[Tensors, dict[str, str]]:
    """Read what `write_tensors` wrote: the tensors, and the metadata.

    Raises:
        UserError: see `reading`; a tensor is not what was written.
    """
    with reading(file, remedy):
        try:
            with safetensors.safe_open(file, "pt") as opened:
                metadata = opened.metadata() or {}
                tensors = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        except safetensors.SafetensorError as error:
            raise BrokenFileError(f"truncated or no safetensors file: {first_line(error)}") from error
        if CHECKSUMS in metadata:
            found = {name: _checksum(values) for name, values in tensors.items()}
            if found != json.loads(metadata[CHECKSUMS]):
                raise BrokenFileError("its content is not what was written")
        return tensors, metadata


def read_torch(file: Path, remedy: str) -> dict[str, Any]:
    """Read a dictionary of tensors and plain values that `torch.save` wrote. Its checksums are verified.

    Raises:
        UserError: see `reading`; the content is not what was written.
    """
    with reading(file, remedy):
        with zipfile.ZipFile(file) as parts:
            if changed := parts.testzip():
                raise BrokenFileError(f"its part {changed} is not what was written")
            if any(part.external_attr for part in parts.infolist()):  # a part marked as a folder would not be read
                raise BrokenFileError("its list of parts is not what was written")
        content = torch.load(file, map_location="cpu", weights_only=True)
        if not isinstance(content, dict):
            raise BrokenFileError(f"it holds a {type(content).__name__}")
        return content


def _not_finite(name: str) -> NoReturn:
    raise BrokenFileError(f"it holds the number {name}")


def _holds(values: pd.Series, kind: ColumnKind) -> bool:
    match kind:
        case "count":
            return bool(types.is_integer_dtype(values) and (values >= 0).all())
        case "whole":
            return bool(types.is_integer_dtype(values))
        case "number":
            return bool(types.is_numeric_dtype(values) and not types.is_bool_dtype(values))
        case "share":
            return bool(types.is_float_dtype(values) and (values.isna() | values.between(0, 1 + 1e-6)).all())
        case "flag":
            return bool(types.is_bool_dtype(values))
        case "flag or none":
            return all(value is None or isinstance(value, bool) for value in values.tolist())
        case "text":
            return all(isinstance(value, str) for value in values.unique().tolist())
        case "text or none":
            return all(isinstance(value, str) or pd.isna(value) for value in values.unique().tolist())


def _checksum(values: Tensor) -> int:
    described = zlib.crc32(f"{values.dtype} {list(values.shape)}".encode())
    return zlib.crc32(values.reshape(-1).view(torch.uint8).numpy().tobytes(), described)
