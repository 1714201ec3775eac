"""Limits of memory, and the kernel that reuses freed memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from engine_cases import some_edits, trained
from torch import Tensor

import spurious_memorization as sm
from spurious_memorization.engine.cpu import memory as memory_module
from spurious_memorization.engine.evaluate import engine_for
from spurious_memorization.engine.plain import PlainEngine
from spurious_memorization.engine.prefix import edit_cache as edit_cache_module
from spurious_memorization.engine.prefix import engine as prefix_module
from spurious_memorization.engine.prefix import network as network_module
from spurious_memorization.engine.prefix import stacks as stacks_module
from spurious_memorization.engine.prefix.network import SegmentedNetwork, Shared
from spurious_memorization.engine.prefix.prepared import prepare_edit


@pytest.fixture(params=["all", *(pytest.param(name, marks=pytest.mark.slow) for name in ("batch", "waiting", "kept"))])
def tight(request, monkeypatch) -> Iterator[str]:
    limits = {
        "batch": (prefix_module, "BATCH_BYTES"),
        "waiting": (prefix_module, "WAITING_BYTES"),
        "kept": (edit_cache_module, "EDIT_CACHE_BYTES"),
    }
    for name, (module, limit) in limits.items():
        if request.param in (name, "all"):
            monkeypatch.setattr(module, limit, 100)
    return request.param


@pytest.mark.slow
def test_limits_of_memory_change_no_outcome(tight, monkeypatch):
    net, samples = trained()
    edits, samples = some_edits(net)[:20], samples.part(range(40))
    rows = range(-1, len(edits))
    sizes: list[int] = []
    made: list[int] = []

    def counted(
        network: SegmentedNetwork, start: int, several: Sequence[Any], given: list[Tensor], shared: Shared
    ) -> list[Tensor]:
        sizes.append(len(several))
        return network_module.run_stack(network, start, several, given, shared)

    def prepared(*arguments: Any) -> Any:
        made.append(1)
        return prepare_edit(*arguments)

    monkeypatch.setattr(stacks_module, "run_stack", counted)
    monkeypatch.setattr(network_module, "prepare_edit", prepared)
    engine = engine_for(net, samples, execution=sm.Execution(eval_batch_size=20))
    given = engine.run(edits, rows, samples)
    assert (max(sizes) == 1) == (tight in ("batch", "all"))
    assert (len(made) == len(edits)) == (tight not in ("kept", "all"))
    plain = PlainEngine(net).run(edits, rows, samples)
    assert np.array_equal(given.predicted, plain.predicted)
    np.testing.assert_allclose(given.loss, plain.loss, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(given.margin, plain.margin, rtol=1e-5, atol=2e-5)


class _Library:
    """Stands for the C library."""

    def __init__(self) -> None:
        self.options: dict[int, int] = {}
        self.trimmed = 0

    def mallopt(self, option: int, value: int) -> int:
        self.options[option] = value
        return 1

    def malloc_trim(self, _pad: int) -> int:
        self.trimmed += 1
        return 1


def test_freed_memory_is_kept_within_a_block_only(monkeypatch):
    library = _Library()
    monkeypatch.setattr(memory_module, "_glibc", lambda: library)
    for name in ("MALLOC_TRIM_THRESHOLD_", "MALLOC_MMAP_MAX_", "GLIBC_TUNABLES"):
        monkeypatch.delenv(name, raising=False)
    default = {-1: 128 * 1024, -4: 65536}

    def fails() -> None:
        with memory_module.reused_memory():
            assert library.options == {-1: 2**31 - 1, -4: 0}
            raise KeyError

    with pytest.raises(KeyError):
        fails()
    assert library.options == default
    assert library.trimmed == 1
    with memory_module.reused_memory(), memory_module.reused_memory():
        assert library.options == {-1: 2**31 - 1, -4: 0}
    assert library.options == default


@pytest.mark.parametrize(
    ("name", "text", "is_set"),
    [
        ("MALLOC_TRIM_THRESHOLD_", "1000000", True),
        ("MALLOC_MMAP_MAX_", "0", True),
        ("MALLOC_MMAP_THRESHOLD_", "65536", True),
        ("MALLOC_TOP_PAD_", "65536", True),
        ("GLIBC_TUNABLES", "glibc.malloc.check=3:glibc.malloc.trim_threshold=128", True),
        ("GLIBC_TUNABLES", "glibc.malloc.mmap_max=4", True),
        ("GLIBC_TUNABLES", "glibc.malloc.check=3:glibc.elision.enable=1", False),
        ("MALLOC_ARENA_MAX", "2", False),
    ],
)
def test_an_allocator_that_the_user_has_set_is_left_alone(name, text, is_set, monkeypatch):
    library = _Library()
    monkeypatch.setattr(memory_module, "_glibc", lambda: library)
    monkeypatch.setenv(name, text)
    with memory_module.reused_memory() as return_memory:
        return_memory()
        assert bool(library.options) != is_set
    assert bool(library.options) != is_set
    assert bool(library.trimmed) != is_set


@pytest.mark.slow
def test_elsewhere_than_with_glibc_memory_is_left_alone(monkeypatch):
    net, samples = trained()
    rows = range(-1, 0)
    expected = engine_for(net, samples).run([], rows, samples)
    monkeypatch.setattr(memory_module, "_glibc", lambda: None)
    assert np.array_equal(engine_for(net, samples).run([], rows, samples).loss, expected.loss)
    monkeypatch.undo()
    monkeypatch.setattr(memory_module.sys, "platform", "darwin")
    assert memory_module._glibc() is None
