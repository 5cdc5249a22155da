"""Case: single predictions over HTTP, beside the same Flask app predicting in-process, idle and while a batch runs."""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from bench.clients import crowd, customer_bodies, latencies_ms
from bench.ground import Ground
from bench.inprocess import predicting_api
from bench.latency import latency_section
from bench.measure import Findings, Samples, Section, Target, in_turn, medians, percentile, table_of, tell
from bench.reference import EVERYONE

_QUEUE: Final = "through the queue"
_INSIDE: Final = "in-process"
_IDLE: Final = "idle"
_BUSY: Final = "while a batch runs"
_CLIENTS: Final = 32
_WARM_UP_REQUESTS: Final = 50


def measure(ground: Ground, *, n: int, requests: int, seconds: float, rounds: int) -> Findings:
    """Compare latency with one client, throughput with 32, and the latency while a batch of n stored customers runs.

    Parameters
    ----------
    requests : int
        Of one client in one round.
    seconds : float
        How long the many clients go on in one round.
    """
    ground.store_customers(n)
    ground.forget_batches()
    with predicting_api(ground) as inside:
        single = _Single(ground, {_QUEUE: ground.stack.api_url, _INSIDE: inside}, customer_bodies(), requests, rounds)
        single.warm_up()
        findings = single.alone()
        findings.add(single.crowded(seconds))
        findings.add(single.beside_a_batch(n))
    findings.sections.append(latency_section(single.latencies, drawn=(_IDLE, _BUSY)))
    return findings


@dataclass(slots=True)
class _Single:
    """The requests of one run: where they go, and how long each of them took, by case and contender."""

    ground: Ground
    urls: Mapping[str, str]
    bodies: list[bytes]
    requests: int
    rounds: int
    latencies: dict[str, dict[str, list[float]]] = field(default_factory=lambda: defaultdict(lambda: defaultdict(list)))

    def warm_up(self) -> None:
        for url in self.urls.values():
            latencies_ms(url, self.bodies, lambda sent: sent >= _WARM_UP_REQUESTS)

    def alone(self) -> Findings:
        """One client, and nothing else going on."""
        tell("Single predictions, one client, p50 in ms:")
        slowest: Samples = {name: [] for name in self.urls}

        def p50(name: str) -> float:
            measured = self._idle(name)
            self.latencies[_IDLE][name] += measured
            slowest[name].append(percentile(measured, 0.99))
            return percentile(measured, 0.5)

        usual = in_turn({name: partial(p50, name) for name in self.urls}, rounds=self.rounds, warm_up=False)
        found = Findings()
        note = f"{self.requests:,} requests a round."
        for label, samples, target in (("p50", usual, 2.5), ("p99", slowest, 3.0)):
            middle = medians(samples)
            found.targets.append(Target(f"single_{label}", middle[_QUEUE], middle[_INSIDE], target, "ms", False))
            found.sections.append(_section(f"Single predictions, one client, {label}", "ms", samples, _INSIDE, note))
        return found

    def crowded(self, seconds: float) -> Findings:
        """Many clients at once."""
        tell(f"Single predictions a second, {_CLIENTS} clients:")

        def rate(name: str) -> float:
            found, measured = crowd(self.urls[name], self.bodies, clients=_CLIENTS, seconds=seconds)
            self.latencies[f"{_CLIENTS} clients"][name] += measured
            return found

        samples = in_turn({name: partial(rate, name) for name in self.urls}, rounds=self.rounds, warm_up=False)
        middle = medians(samples)
        target = Target("single_throughput_32_clients", middle[_QUEUE], middle[_INSIDE], 0.4, "requests/s")
        title = f"Single predictions, {_CLIENTS} clients"
        return Findings([target], [_section(title, "requests/s", samples, _INSIDE, "One interactive worker.")])

    def beside_a_batch(self, n: int) -> Findings:
        """One client while the workers score all customers; in-process too, to tell busy processors from a busy queue."""
        tell("Single predictions, one client, p99 in ms:")

        def idle() -> float:
            return percentile(self._idle(_QUEUE), 0.99)

        def busy(name: str) -> float:
            measured = while_batch_runs(self.ground, lambda stop: latencies_ms(self.urls[name], self.bodies, stop))
            self.latencies[_BUSY][name] += measured
            return percentile(measured, 0.99)

        inside = f"{_BUSY}, {_INSIDE}"
        contenders: dict[str, Callable[[], float]] = {_IDLE: idle, _BUSY: partial(busy, _QUEUE), inside: partial(busy, _INSIDE)}
        samples = in_turn(contenders, rounds=self.rounds, warm_up=False)
        middle = medians(samples)
        target = Target("single_p99_while_a_batch_runs", middle[_BUSY], middle[_IDLE], 3.0, "ms", False)
        note = f"The batch scores {n:,} stored customers in two processes on the same cores."
        return Findings([target], [_section("Single predictions beside a batch, p99", "ms", samples, _IDLE, note)])

    def _idle(self, name: str) -> list[float]:
        return latencies_ms(self.urls[name], self.bodies, lambda sent: sent >= self.requests)


def while_batch_runs(ground: Ground, work: Callable[[Callable[[int], bool]], list[float]]) -> list[float]:
    """Do something over and over while a batch over all stored customers runs; returns what it measured."""
    ground.forget_batches()
    ended = threading.Event()
    answer = ground.client.post("/batches", json=EVERYONE)

    def follow() -> None:
        try:
            ground.finished(answer)
        finally:
            ended.set()

    follower = threading.Thread(target=follow)
    follower.start()
    try:
        return work(lambda sent: sent > 0 and ended.is_set())
    finally:
        follower.join()


def _section(title: str, unit: str, samples: Samples, against: str, note: str) -> Section:
    header = (unit, "median", "lowest", "highest", f"to {against}")
    return Section(title, note, header, table_of(samples, against=against, digits=2), medians(samples), unit)
