"""What the benchmark measures: seconds per edited network and image, memory, and how time grows."""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np
import timm
import torch
from torch import nn

import spurious_memorization as sm
from spurious_memorization.datasets.samples import Samples
from spurious_memorization.engine.evaluate import engine_for
from spurious_memorization.engine.protocol import Engine
from spurious_memorization.networks.names import Precision
from spurious_memorization.networks.selection import Selection
from spurious_memorization.networks.units import sites


def trained_resnet50(samples: Samples, steps: int = 40) -> nn.Module:
    """A ResNet-50 trained for some steps from random weights, so that no download is needed."""
    torch.manual_seed(0)
    model = timm.create_model("resnet50", num_classes=2).to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-4)
    batches = samples.shuffled(0, 0).part(range(16 * steps)).batches(16)
    for batch in batches:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            output = model(batch.inputs.to(memory_format=torch.channels_last))
        loss = nn.functional.cross_entropy(output.float(), batch.y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


def uniform_channels(model: nn.Module, n: int, seed: int = 0) -> list[sm.Edit]:
    """Edits that zero one channel each. Channels are sampled at a fixed stride from a random offset.

    This varies less from seed to seed than independent draws.
    """
    places = [(name, index) for name, site in sites(model, Selection()).items() for index in range(site.n)]
    start = np.random.default_rng(seed).uniform(0, len(places) / n)
    drawn = (start + np.arange(n) * len(places) / n).astype(int)
    return [sm.edits.zero(sm.parse_units(model, "{}:{}".format(*places[i]))) for i in drawn]


def largest_channel_grid(ranking: sm.Units, older: nn.Module) -> list[sm.Edit]:
    """The 196 edited networks of the paper's largest-channel study, on the first units of a ranking.

    These are zero with k = 1..10, and random_init, random_noise and rewind with k = 1..3; each random edit ten times.
    """
    edits = [sm.edits.zero(ranking.first(k)) for k in range(1, 11)]
    for k in (1, 2, 3):
        units = ranking.first(k)
        for repeat in range(10):
            edits += [sm.edits.random_init(units, std, seed=repeat) for std in (0.02, 0.15, 0.1)]
            edits += [sm.edits.random_noise(units, std, seed=repeat) for std in (0.02, 0.01, 0.005)]
        edits += [sm.edits.rewind(units, older.state_dict(), epochs) for epochs in (5, 10)]
    return edits


def engine_seconds(engine: Engine, edits: Sequence[sm.Edit], samples: Samples, *, repeats: int = 1) -> float:
    """Seconds per edited network and image: the smallest of several repeats."""
    seconds = []
    for _ in range(repeats):
        started = time.perf_counter()
        engine.run(edits, range(len(edits)), samples)
        seconds.append((time.perf_counter() - started) / (len(edits) * len(samples)))
    return min(seconds)


def compiled_engine(model: nn.Module, samples: Samples, precision: Precision) -> tuple[Engine, float]:
    """A compiled engine, and the seconds that compiling all its segments took."""
    engine = engine_for(model, samples, precision=precision)
    one = [sm.edits.zero(sm.parse_units(model, "conv1:3"))]
    started = time.perf_counter()
    engine = engine.compiled()
    engine.run(one, range(1), samples)
    first = time.perf_counter() - started
    return engine, max(0.0, first - engine_seconds(engine, one, samples) * len(samples))


def decoding_seconds(samples: Samples) -> tuple[float, float]:
    """Seconds per image through `Samples.batches`: first decoded and stored, then read from the cache."""
    times = []
    for _ in range(2):
        started = time.perf_counter()
        for _batch in samples.batches(50):
            pass
        times.append((time.perf_counter() - started) / len(samples))
    return times[0], times[1]


def growth(model: nn.Module, samples: Samples) -> dict[str, list[float]]:
    """Seconds per edited network and image, with 1, 2, 4 and 8 times as many images or edits."""
    engine, edits = engine_for(model, samples), uniform_channels(model, 8)
    engine_seconds(engine, edits, samples.part(range(20)))
    return {
        "images": [engine_seconds(engine, edits, samples.part(range(40 * k))) for k in (1, 2, 4, 8)],
        "edits": [engine_seconds(engine, edits * k, samples.part(range(40))) for k in (1, 2, 4, 8)],
    }
