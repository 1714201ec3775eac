"""Workers that are actors of Ray, on this machine or on the machines of a cluster."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..console import log
from ..errors import UserError, first_line
from ..extras import imported
from .places import LostWorkerError
from .worker import Body

LOOK_AGAIN = 10.0
"""So many seconds after the last look, machines may have joined the cluster."""


class RayCluster:
    """A place for actors of Ray: one for each GPU, or one for so many cores. Machines may join and leave meanwhile.

    A Ray that this program uses already is used further. Otherwise the cluster of the address is joined, and without
    an address the one that runs on this machine; if none does, one is started for the time of the work.

    Arguments:
        address: of the cluster's head, ray://HEAD:PORT; None for a cluster of this machine.
        make: the pickled function that makes the function of a worker.
        threads: cores of each worker without a GPU, and threads of PyTorch in each worker.
        on_gpus: use the GPUs, if the cluster has any.

    Raises:
        UserError: Ray is not installed, the cluster can't be reached, or no machine has enough cores for a worker.
    """

    def __init__(self, address: str | None, make: bytes, threads: int, *, on_gpus: bool) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # as it will be by default
        self._ray = imported("ray", "ray")
        self._is_ours = not self._ray.is_initialized()
        if self._is_ours:
            self._join(address)
        self._on_gpus = on_gpus and any(machine.get("GPU", 0) >= 1 for machine in self._machines())
        self._threads = threads
        self._room = 0
        if not self.room:
            self.close()
            raise UserError(
                f"no machine of the Ray cluster has {threads} cores for a worker: set OMP_NUM_THREADS to fewer"
            )
        needs = {"num_gpus": 1, "num_cpus": 1} if self._on_gpus else {"num_cpus": threads}
        self._actor = self._ray.remote(Body).options(**needs)
        self._make = self._ray.put(make)

    @property
    def room(self) -> int:
        """The workers for which the machines have room that are in the cluster now."""
        machines = self._machines()
        resource, per_worker = ("GPU", 1) if self._on_gpus else ("CPU", self._threads)
        room = sum(int(machine.get(resource, 0)) // per_worker for machine in machines)
        if room and room != self._room:
            each = "a GPU" if self._on_gpus else f"{self._threads} of the cores"
            log(f"Ray: {len(machines)} machines, {room} workers with {each} each")
        self._room = room or self._room  # where all machines are lost, another one may come
        return self._room

    def start(self) -> RayActor:
        """Start an actor; see `Place.start`."""
        actor = self._actor.remote()
        return RayActor(self._ray, actor, actor.start.remote(self._make, self._threads, sys.path, str(Path.cwd())))

    def ready(self, busy: Sequence[RayActor]) -> RayActor | None:
        """Wait for one of the actors; see `Place.ready`."""
        by_answer = {worker.waited_for: worker for worker in busy}
        answers, _ = self._ray.wait(list(by_answer), num_returns=1, timeout=LOOK_AGAIN)
        return by_answer[answers[0]] if answers else None

    def close(self) -> None:
        """Leave the cluster, or end it, if it was joined or started here."""
        if self._is_ours:
            self._ray.shutdown()

    def _machines(self) -> list[dict[str, float]]:
        """What each machine has."""
        return [node["Resources"] for node in self._ray.nodes() if node["Alive"]]

    def _join(self, address: str | None) -> None:
        options: dict[str, Any] = {} if address else {"include_dashboard": False}
        try:
            self._ray.init(address=address, log_to_driver=False, logging_level="ERROR", **options)
        except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
            place = address or "of this machine"
            raise UserError(
                f"the Ray cluster {place} can't be used ({first_line(error)}): start its head by `ray start --head`, "
                "with the same versions of Python and Ray"
            ) from error


class RayActor:
    """An actor, and the answer that is waited for."""

    def __init__(self, ray: Any, actor: Any, started: Any) -> None:
        self._ray = ray
        self._actor = actor
        self.waited_for = started

    def send(self, piece: bytes) -> None:
        """Give it a piece; see `Worker.send`."""
        self.waited_for = self._actor.run.remote(piece)

    def answer(self) -> tuple[bool, Any]:
        """Fetch its answer; see `Worker.answer`."""
        lost = self._ray.exceptions
        try:
            told: tuple[bool, Any] = self._ray.get(self.waited_for)
        except (lost.RayActorError, lost.ObjectLostError, lost.OutOfMemoryError) as error:
            raise LostWorkerError(first_line(error)) from error
        return told

    def stop(self) -> None:
        """Kill it."""
        self._ray.kill(self._actor)
