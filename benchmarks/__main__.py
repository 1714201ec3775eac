"""Measure everything in one run and print one table."""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import timm
import torch
from torch import nn

import spurious_memorization as sm
from spurious_memorization.datasets.samples import Samples
from spurious_memorization.engine.evaluate import engine_for, passes_needed
from spurious_memorization.engine.outcomes import block_plan
from spurious_memorization.engine.protocol import Engine
from spurious_memorization.settings import Execution
from spurious_memorization.studies.block_workers import block_workers
from spurious_memorization.studies.blocks import Part, announce_engine, measured_blocks
from spurious_memorization.studies.store import FolderStore

from . import gpu, measures, memory, training
from .images import make_images
from .rates import matrix_product_rate
from .reference import Reference, reference

PRECISIONS = ("float32", "bf16")
VERDICT_MINUTES = 8
TURNS = 3


class Table:
    """The table of results. Each row is printed when it is measured, and all rows again at the end."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def add(self, what: str, measured: str, floor: str = "") -> None:
        self.lines.append(f"{what:<68} {measured:<40} {floor}")
        print(self.lines[-1], flush=True)


@dataclass(frozen=True)
class Bench:
    """What every part of the benchmark starts from.

    Arguments:
        table: the table of results.
        folder: folder of the images.
        scratch: folder for stored outcomes.
        train: all images.
        some: 200 of them.
        model: the ResNet-50.
        edits: 60 edits, each of a single channel.
        reference: the reference procedure for the ResNet-50.
    """

    table: Table
    folder: Path
    scratch: Path
    train: Samples
    some: Samples
    model: nn.Module
    edits: list[sm.Edit]
    reference: Reference

    @property
    def files(self) -> list[Path]:
        return image_files(self.folder, self.some)


def image_files(folder: Path, samples: Samples) -> list[Path]:
    return [folder / samples.dataset.source.paths[i] for i in samples.index]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, help="keep the images here; a temporary folder if not given")
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="these parts; all if not given")
    chosen = parser.parse_args()
    if chosen.only == ["gpu"]:  # these rows need no images
        gpu.add_rows(Table().add)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = chosen.folder or Path(temporary) / "images"
        os.environ["SPURMEM_CACHE"] = str(Path(temporary) / "cache")
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(Path(temporary) / "compiled")
        run(make_images(folder), Path(temporary), chosen.only)


def run(folder: Path, scratch: Path, parts: list[str]) -> None:
    """The parts, beside the reference procedure."""
    table, started = Table(), time.perf_counter()
    train = sm.read_data(folder).train
    some = train.per_group(50, seed=0)
    model = measures.trained_resnet50(train)
    table.add("machine", _machine())
    cold, warm = measures.decoding_seconds(some)
    table.add("images: second pass against decoding", f"{cold / warm:.1f}x ({1e3 * warm:.2f} ms each)", "at least 20x")
    edits, files = measures.uniform_channels(model, 60), image_files(folder, some)
    with reference(model, "resnet50", files) as procedure:
        bench = Bench(table, folder, scratch, train, some, model, edits, procedure)
        for part in parts:
            PARTS[part](bench)
    table.add("the whole benchmark", f"{(time.perf_counter() - started) / 60:.0f} min")
    print("\n" + "\n".join(table.lines))


def one_network(bench: Bench) -> None:
    one = [sm.edits.zero(sm.parse_units(bench.model, "conv1:3"))]
    for precision, least in (("float32", 3), ("bf16", 6)):
        engine = engine_for(bench.model, bench.some, precision=precision)
        what = "one edited network (in conv1: nothing shared)"
        compared(bench.table, what, bench.reference, engine, one, bench.some, least)
        engine, seconds = measures.compiled_engine(bench.model, bench.some, precision)
        compared(
            bench.table, f"  compiled, {seconds:.0f} s to compile", bench.reference, engine, one, bench.some, least
        )


def channels(bench: Bench) -> None:
    some = bench.some.part(range(100))
    sixty(bench.table, "ResNet-50", bench.model, bench.edits, some, bench.reference, (20, 40))


def transformers(bench: Bench) -> None:
    for name in ("deit_tiny_patch16_224", "deit_small_patch16_224"):
        torch.manual_seed(0)
        deit = timm.create_model(name, num_classes=2).eval()
        drawn = measures.uniform_channels(deit, 60)
        with reference(deit, name, bench.files) as procedure:
            sixty(bench.table, name.split("_patch")[0], deit, drawn, bench.some.part(range(100)), procedure)


def growth(bench: Bench) -> None:
    for what, times in measures.growth(bench.model, bench.train).items():
        slowest = max(times) / min(times)
        shown = " ".join(f"{1e3 * t:.2f}" for t in times)
        bench.table.add(
            f"float32, ms per edited network and image, 1 2 4 8 times the {what}", f"{shown} (spread {slowest:.2f})"
        )


def peak_memory(bench: Bench) -> None:
    for what, peak in memory.rows():
        bench.table.add(what, peak, "within 10 %")


def on_gpu(bench: Bench) -> None:
    gpu.add_rows(bench.table.add)


def finetuning(bench: Bench) -> None:
    for line in training.rows():
        bench.table.add(line, "")


def sixty(
    table: Table,
    name: str,
    model: nn.Module,
    edits: list[sm.Edit],
    samples: Samples,
    procedure: Reference,
    floors: tuple[int, int] | None = None,
) -> None:
    for place, precision in enumerate(PRECISIONS):
        engine = engine_for(model, samples, precision=precision)
        saved = 1 - passes_needed(engine, edits, len(samples)) / ((len(edits) + 1) * len(samples))
        what = f"{name}: 60 single channels, {saved:.0%} saved"
        compared(table, what, procedure, engine, edits, samples, floors[place] if floors else None)


def compared(
    table: Table,
    what: str,
    procedure: Reference,
    engine: Engine,
    edits: list[sm.Edit],
    samples: Samples,
    floor: int | None = None,
) -> None:
    """Add a row: the engine against the reference procedure and against a matrix product, which take turns."""
    dtype = torch.float32 if engine.precision == "float32" else torch.bfloat16
    turns = [
        (procedure.seconds(), measures.engine_seconds(engine, edits, samples), matrix_product_rate(dtype))
        for _ in range(TURNS)
    ]
    theirs, ours, peak = (statistics.median(each) for each in zip(*turns, strict=True))
    operations = 2 * engine.pass_multiplications * float(engine.pass_fractions(edits).mean())
    share = operations / ours / 1e9 / peak
    table.add(
        f"{what}, {engine.precision}",
        f"{_ratio(theirs, ours)}; {share:.0%} of a matrix product's {peak:.0f} GFLOPS",
        f"at least {floor}x" if floor else "",
    )


def grid(bench: Bench) -> None:
    model, samples = bench.model, bench.some
    ranking = sm.top(sm.criteria.weight_norm(model), 10)
    older = timm.create_model("resnet50", num_classes=2)
    layers = ", ".join(sorted({name.removesuffix(".weight") for name, _ in ranking}))
    for where, units in (
        (f"here in {layers}", ranking),
        ("were they all in conv1", sm.parse_units(model, ",".join(f"conv1:{i}" for i in range(10)))),
    ):
        edits, few = measures.largest_channel_grid(units, older), samples.part(range(20))
        for precision in PRECISIONS:
            row = f"largest-channel grid, {len(edits)} edits, {where}"
            compared(bench.table, row, bench.reference, engine_for(model, few, precision=precision), edits, few)


def verdict(bench: Bench) -> None:
    """Measure one selected set of three channels and 99 null sets, on at most 500 images per group.

    It uses the faster precision. If the plan exceeds `VERDICT_MINUTES`, fewer images are used, and the table says so.
    """
    table, model, train = bench.table, bench.model, bench.train
    group = train.dataset.minority[0]
    units = sm.top(sm.criteria.gradient(model, sm.hardest_samples(model, train, group)), 3)
    edit = sm.edits.zero(units)
    nulls = sm.null_sets(model, edit, 99)
    engines = {precision: engine_for(model, train, precision=precision) for precision in PRECISIONS}
    a_pass, precision = min((engine.pass_time(train).seconds, precision) for precision, engine in engines.items())
    engine = engines[precision]

    def planned(parts: list[Part]) -> float:
        return a_pass * sum(passes_needed(engine, edits, len(samples)) for _, edits, samples, _ in parts)

    parts = [Part("selected", [edit], train), Part("null sets", nulls, train.per_group(500, seed=0))]
    whole = planned(parts)
    table.add(
        f"a verdict on {units}, 4795 and {len(parts[1].samples)} images, {precision}", f"planned {whole / 60:.1f} min"
    )
    if whole > 60 * VERDICT_MINUTES:
        share = 60 * VERDICT_MINUTES / whole
        parts = [
            Part(label, edits, samples.part(range(0, round(share * len(samples)))))
            for label, edits, samples, _ in parts
        ]
        table.add("  too long for this benchmark: on fewer images", " and ".join(str(len(p.samples)) for p in parts))
    expected = planned(parts)
    named = {f"outcomes/{part.label}": part for part in parts}
    engine, time_to_go = announce_engine(engine, named, Execution())
    started = time.perf_counter()
    loss, execution = "cross_entropy", Execution()
    with block_workers(engine, bench.model, parts[0].samples, loss=loss, execution=execution) as workers:
        for name, part in named.items():
            for _ in measured_blocks(FolderStore(bench.scratch), name, workers, part, time_to_go):
                pass
    seconds = time.perf_counter() - started
    networks = sum((len(edits) + 1) * len(samples) for _, edits, samples, _ in parts)
    table.add("  measured", f"planned {expected / 60:.1f} min, real {seconds / 60:.1f} min")
    table.add("  against the reference procedure", _ratio(bench.reference.seconds(), seconds / networks))
    table.add("  blocks", str(sum(len(list(block_plan(len(e), len(s)))) for _, e, s, _ in parts)))


def _ratio(theirs: float, ours: float) -> str:
    return f"{theirs / ours:.1f}x ({1 / ours:.0f} networks x images/s)"


def _machine() -> str:
    peaks = [matrix_product_rate(dtype) for dtype in (torch.float32, torch.bfloat16)]
    return (
        f"{torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}, matrix product "
        f"{peaks[0]:.0f} (float32) and {peaks[1]:.0f} (bf16) GFLOPS, PyTorch {torch.__version__}"
    )


PARTS: dict[str, Callable[[Bench], None]] = {
    "one": one_network,
    "channels": channels,
    "grid": grid,
    "transformers": transformers,
    "growth": growth,
    "memory": peak_memory,
    "finetuning": finetuning,
    "verdict": verdict,
    "gpu": on_gpu,
}


if __name__ == "__main__":
    main()
