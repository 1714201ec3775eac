"""Measure everything in one run and print one table."""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from pathlib import Path

import timm
import torch
from torch import nn

import spurious_memorization as sm
from spurious_memorization.data.samples import Samples
from spurious_memorization.engine.evaluate import engine_for, passes_needed
from spurious_memorization.engine.outcomes import block_plan
from spurious_memorization.settings import Execution
from spurious_memorization.study.blocks import Part, measured_blocks, ready_engine

from . import measures, training
from .pictures import make_pictures
from .reference import reference_seconds

PRECISIONS = ("float32", "bf16")
VERDICT_MINUTES = 8


class Table:
    """Rows are printed as they are measured, and again at the end."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def add(self, what: str, measured: str, floor: str = "") -> None:
        self.lines.append(f"{what:<68} {measured:<40} {floor}")
        print(self.lines[-1], flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="keep the pictures here; a temporary folder if not given")
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = chosen.folder or Path(temporary) / "pictures"
        os.environ["SPURMEM_CACHE"] = str(Path(temporary) / "cache")
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(Path(temporary) / "compiled")
        run(make_pictures(folder), Path(temporary))


def run(folder: Path, scratch: Path) -> None:
    table, started = Table(), time.perf_counter()
    train = sm.read_data(folder).train
    some = train.per_group(50, seed=0)
    files = [folder / train.dataset.source.paths[i] for i in some.index]
    model = measures.trained_resnet50(train)
    table.add("machine", _machine())

    cold, warm = measures.decoding_seconds(some)
    table.add(
        "pictures: second pass against decoding", f"{cold / warm:.1f}x ({1e3 * warm:.2f} ms each)", "at least 20x"
    )

    edits = measures.uniform_channels(model, 60)
    reference = reference_seconds(model, edits[:2], files)
    table.add("ResNet-50 reference procedure, 2 edits x 200 pictures", f"{1 / reference:.1f} pictures/s", "1x; scaled")
    one = [sm.zero(sm.parse_units(model, "conv1:3"))]
    for precision, least, least_warm in (("float32", 3, 4), ("bf16", 6, 9)):
        engine = engine_for(model, some, precision=precision)
        table.add(
            f"one edited network (in conv1: nothing shared), {precision}",
            _ratio(reference, measures.engine_seconds(engine, one, some, repeats=2)),
            f"at least {least}x",
        )
        engine, seconds = measures.compiled_engine(model, some, precision)
        ratio = _ratio(reference, measures.engine_seconds(engine, one, some, repeats=2))
        table.add(f"the same compiled, {precision}", f"{ratio}; {seconds:.0f} s to compile", f"at least {least_warm}x")
    sixty(table, "ResNet-50", model, edits, some, reference, (12, 25))

    grid(table, model, some, reference)
    half = some.part(range(100))
    for name in ("deit_tiny_patch16_224", "deit_small_patch16_224"):
        torch.manual_seed(0)
        deit = timm.create_model(name, num_classes=2).eval()
        drawn = measures.uniform_channels(deit, 60)
        sixty(table, name.split("_patch")[0], deit, drawn, half, reference_seconds(deit, drawn[:1], files))
    for what, times in measures.growth(model, train).items():
        slowest = max(times) / min(times)
        shown = " ".join(f"{1e3 * t:.2f}" for t in times)
        table.add(
            f"bf16, ms an edited network and picture, 1 2 4 8 times the {what}", f"{shown} (spread {slowest:.2f})"
        )
    base, more_pictures, more_edits = (measures.peak_memory(folder, *size) for size in ((40, 30), (400, 30), (40, 300)))
    table.add("peak anonymous memory, 40 pictures x 30 edits", f"{base:.2f} GiB", "at most 3 GiB")
    table.add("  10 times the pictures", f"{more_pictures:.2f} GiB ({more_pictures / base - 1:+.0%})", "within 10 %")
    table.add("  10 times the edits", f"{more_edits:.2f} GiB ({more_edits / base - 1:+.0%})", "within 10 %")
    for line in training.rows():
        table.add(line, "")
    verdict(table, model, train, reference, scratch)
    reference = reference_seconds(model, edits[:1], files)
    table.add("ResNet-50 reference procedure again, at the end", f"{1 / reference:.1f} pictures/s")
    table.add("the whole benchmark", f"{(time.perf_counter() - started) / 60:.0f} min")
    print("\n" + "\n".join(table.lines))


def sixty(
    table: Table,
    name: str,
    model: nn.Module,
    edits: list[sm.Edit],
    samples: Samples,
    reference: float,
    floors: tuple[int, int] | None = None,
) -> None:
    for place, precision in enumerate(PRECISIONS):
        engine = engine_for(model, samples, precision=precision)
        saved = 1 - passes_needed(engine, edits, len(samples)) / ((len(edits) + 1) * len(samples))
        ratio = _ratio(reference, measures.engine_seconds(engine, edits, samples))
        floor = f"at least {floors[place]}x" if floors else ""
        table.add(f"{name}: 60 single channels, {precision}", f"{ratio}; {saved:.0%} saved", floor)


def grid(table: Table, model: nn.Module, samples: Samples, reference: float) -> None:
    ranking = sm.top(sm.magnitude(model), 10)
    older = timm.create_model("resnet50", num_classes=2)
    layers = ", ".join(sorted({name.removesuffix(".weight") for name, _ in ranking}))
    for where, units in (
        (f"here in {layers}", ranking),
        ("were they all in conv1", sm.parse_units(model, ",".join(f"conv1:{i}" for i in range(10)))),
    ):
        edits, few = measures.largest_channel_grid(units, older), samples.part(range(20))
        for precision in PRECISIONS:
            seconds = measures.engine_seconds(engine_for(model, few, precision=precision), edits, few)
            table.add(f"largest-channel grid, {len(edits)} edits, {where}, {precision}", _ratio(reference, seconds))


def verdict(table: Table, model: nn.Module, train: Samples, reference: float, scratch: Path) -> None:
    """One selected set of three channels beside 99 controls, at most 500 pictures a group; where the plan says more
    minutes than `VERDICT_MINUTES`, fewer pictures, which is said."""
    group = train.dataset.minority[0]
    units = sm.top(sm.gradient(model, sm.worst(model, train, group)), 3)
    edit = sm.zero(units)
    controls = sm.matched_controls(model, edit, 99)
    engine = engine_for(model, train, precision="bf16")
    a_pass = engine.pass_seconds(train)

    def planned(parts: list[Part]) -> float:
        return a_pass * sum(passes_needed(engine, edits, len(samples)) for _, edits, samples, _ in parts)

    parts = [Part("selected", [edit], train), Part("controls", controls, train.per_group(500, seed=0))]
    whole = planned(parts)
    table.add(f"a verdict on {units}, 4795 and {len(parts[1].samples)} pictures, bf16", f"planned {whole / 60:.1f} min")
    if whole > 60 * VERDICT_MINUTES:
        share = 60 * VERDICT_MINUTES / whole
        parts = [
            Part(label, edits, samples.part(range(0, round(share * len(samples)))))
            for label, edits, samples, _ in parts
        ]
        table.add("  too long for this benchmark: on fewer pictures", " and ".join(str(len(p.samples)) for p in parts))
    expected = planned(parts)
    engine = ready_engine(engine, parts, Execution())
    started = time.perf_counter()
    for part in parts:
        for _ in measured_blocks(scratch / "outcomes", part.label, engine, part):
            pass
    seconds = time.perf_counter() - started
    networks = sum((len(edits) + 1) * len(samples) for _, edits, samples, _ in parts)
    table.add("  measured", f"planned {expected / 60:.1f} min, real {seconds / 60:.1f} min")
    table.add("  against the reference procedure", _ratio(reference, seconds / networks))
    table.add("  blocks", str(sum(len(list(block_plan(len(e), len(s)))) for _, e, s, _ in parts)))


def _ratio(reference: float, seconds: float) -> str:
    return f"{reference / seconds:.1f}x ({1 / seconds:.0f} networks x pictures/s)"


def _machine() -> str:
    peaks = []
    for dtype in (torch.float32, torch.bfloat16):
        a, b = torch.randn(2048, 2048).to(dtype), torch.randn(2048, 2048).to(dtype)
        seconds = []
        for _ in range(5):
            started = time.perf_counter()
            a @ b
            seconds.append(time.perf_counter() - started)
        peaks.append(2 * 2048**3 / min(seconds) / 1e9)
    return (
        f"{torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}, matrix product "
        f"{peaks[0]:.0f} (float32) and {peaks[1]:.0f} (bf16) GFLOPS, PyTorch {torch.__version__}"
    )


if __name__ == "__main__":
    main()
