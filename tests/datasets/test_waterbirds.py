"""Waterbirds' own layout, read from a folder or an archive."""

from __future__ import annotations

import http.server
import tarfile
import threading
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from spurious_memorization.datasets import archives, waterbirds
from spurious_memorization.datasets.folder import read_data
from spurious_memorization.datasets.groups import group_counts
from spurious_memorization.datasets.waterbirds import FOLDER, KNOWN_COUNTS, prepare_waterbirds
from spurious_memorization.errors import UserError


def metadata(counts: dict[str, tuple[int, ...]]) -> pd.DataFrame:
    """A table with Waterbirds' columns and these counts of the four groups."""
    rows = []
    for split, (_, numbers) in enumerate(counts.items()):
        for group, n in enumerate(numbers):
            rows += [(group // 2, split, group % 2)] * n
    frame = pd.DataFrame(rows, columns=["y", "split", "place"])
    frame.insert(0, "img_id", range(1, len(frame) + 1))
    names = [f"{y + 1:03d}.Kind/Kind_{i:04d}.jpg" for i, y in enumerate(frame["y"])]
    frame.insert(1, "img_filename", names)
    frame["place_filename"] = "/o/ocean/00000001.jpg"
    return frame


def small(folder: Path, prefix: str = "") -> Path:
    """A folder with three samples of each group, with their images."""
    place = folder / prefix
    place.mkdir(parents=True, exist_ok=True)
    frame = metadata(dict.fromkeys(KNOWN_COUNTS, (1, 1, 1, 1)))
    frame.to_csv(place / "metadata.csv", index=False)
    rng = np.random.default_rng(0)
    for name in frame["img_filename"]:
        (place / name).parent.mkdir(exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (30, 40, 3), dtype=np.uint8)).save(place / name)
    return folder


def test_groups_counts_and_transform(tmp_path: Path) -> None:
    metadata(KNOWN_COUNTS).to_csv(tmp_path / "metadata.csv", index=False)
    data = read_data(tmp_path)
    assert data.layout == data.name == "waterbirds"
    assert data.groups.names == ("landbird on land", "landbird on water", "waterbird on land", "waterbird on water")
    for split, counts in KNOWN_COUNTS.items():
        assert tuple(group_counts(data.groups, data.g[data.split == split])) == counts
    assert [data.groups.names[g] for g in data.minority] == ["landbird on water", "waterbird on land"]
    assert [data.groups.names[g] for g in data.majority] == ["landbird on land", "waterbird on water"]
    transform = data.source.transform
    assert (transform.resize, transform.image_size, transform.keep_aspect) == (256, 224, False)
    assert transform.mean == (0.485, 0.456, 0.406)
    assert transform.std == (0.229, 0.224, 0.225)


def test_the_parent_folder_is_accepted(tmp_path: Path) -> None:
    parent = read_data(small(tmp_path, FOLDER), image_size=28)
    own = read_data(tmp_path / FOLDER, image_size=28)
    assert parent.source.paths[0] == f"{FOLDER}/{own.source.paths[0]}"
    assert (parent.train.batch().inputs == own.train.batch().inputs).all()


def test_dataset_yaml_comes_first(tmp_path: Path) -> None:
    small(tmp_path)
    (tmp_path / "dataset.yaml").write_text("name: mine\nimage_size: 32\nresize: 32\nclasses: [finch, gull]\n")
    data = read_data(tmp_path)
    assert data.name == "mine"
    assert data.groups.names[0] == "finch on land"
    assert data.source.transform.image_size == data.source.transform.resize == 32


def test_missing_columns_and_values(tmp_path: Path) -> None:
    frame = metadata({"train": (2, 2, 2, 2)})
    frame.drop(columns=["place", "split"]).to_csv(tmp_path / "metadata.csv", index=False)
    with pytest.raises(UserError, match="has no column split, place"):
        read_data(tmp_path)
    frame.assign(img_filename=[None, *frame["img_filename"][1:]]).to_csv(tmp_path / "metadata.csv", index=False)
    with pytest.raises(UserError, match=r"'path' has no value in metadata\.csv, line 2"):
        read_data(tmp_path)
    frame.assign(y=7).to_csv(tmp_path / "metadata.csv", index=False)
    with pytest.raises(UserError, match="contains 7, which is none of landbird, waterbird"):
        read_data(tmp_path)


def test_a_folder_is_used_where_it_is(tmp_path: Path) -> None:
    source = small(tmp_path / "mine")
    assert prepare_waterbirds(source) == source
    out = tmp_path / "deep" / "link"
    assert prepare_waterbirds(source, out) == out
    assert out.is_symlink()
    assert prepare_waterbirds(source, out) == out
    assert len(read_data(out)) == 12
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="does not contain Waterbirds"):
        prepare_waterbirds(tmp_path / "empty")
    with pytest.raises(UserError, match="already exists"):
        prepare_waterbirds(source, small(tmp_path / "other"))
    with pytest.raises(UserError, match="does not exist"):
        prepare_waterbirds(tmp_path / "absent")


def packed(folder: Path, file: Path) -> Path:
    with tarfile.open(file, "w:gz") as tar:
        tar.add(folder, FOLDER)
    return file


def test_an_archive_is_unpacked_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = packed(small(tmp_path / "mine"), tmp_path / "archive.tar.gz")
    out = tmp_path / "data"
    assert prepare_waterbirds(archive, out) == out
    assert (out / "metadata.csv").is_file()
    assert len(read_data(out).train.batch().y) == 4
    monkeypatch.setattr(archives, "extract", lambda *_: pytest.fail("unpacked again"))
    assert prepare_waterbirds(archive, out) == out
    with pytest.raises(UserError, match="--out DIR"):
        prepare_waterbirds(archive)


def test_another_archive_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "readme").write_text("no birds")
    with pytest.raises(UserError, match="does not contain Waterbirds"):
        prepare_waterbirds(packed(tmp_path / "other", tmp_path / "archive"), tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_downloading(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    served = tmp_path / "served"
    served.mkdir()
    packed(small(tmp_path / "mine"), served / "data.tar.gz")
    out = tmp_path / "new" / "data"

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(served))) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        address = f"http://127.0.0.1:{server.server_address[1]}"
        try:
            monkeypatch.setattr(waterbirds, "URL", f"{address}/gone.tar.gz")
            with pytest.raises(
                UserError, match=rf"404.*get {FOLDER}\.tar\.gz from another source.*prepare waterbirds .*--out"
            ):
                prepare_waterbirds(None, out)
            (served / "page.tar.gz").write_text("<html>moved</html>")
            monkeypatch.setattr(waterbirds, "URL", f"{address}/page.tar.gz")
            with pytest.raises(UserError, match="not a complete zip or tar archive"):
                prepare_waterbirds(None, out)
            monkeypatch.setattr(waterbirds, "URL", f"{address}/data.tar.gz")
            assert prepare_waterbirds(None, out) == out
        finally:
            server.shutdown()
            thread.join()
    assert len(read_data(out)) == 12
    assert [p.name for p in out.parent.iterdir()] == ["data"]
    assert prepare_waterbirds(None, out) == out
    with pytest.raises(UserError, match="--out DIR"):
        prepare_waterbirds()


def test_an_archive_left_by_an_interrupted_call_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "data"
    packed(small(tmp_path / "mine"), tmp_path / "archive").rename(tmp_path / f".data.{FOLDER}.tar.gz")
    monkeypatch.setattr(waterbirds, "download", lambda *_: pytest.fail("downloaded again"))
    assert prepare_waterbirds(None, out) == out
    assert sorted(p.name for p in tmp_path.iterdir()) == ["data", "mine"]
