"""Case: single predictions over HTTP, beside the same Flask app predicting in-process, idle and while a batch runs."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from typing import Final

from bench.clients import customer_bodies, latencies_ms, requests_a_second
from bench.ground import Ground
from bench.inprocess import predicting_api
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
    bodies = customer_bodies()
    with predicting_api(ground) as inside:
        urls = {_QUEUE: ground.stack.api_url, _INSIDE: inside}
        for url in urls.values():
            latencies_ms(url, bodies, lambda sent: sent >= _WARM_UP_REQUESTS)
        findings = _latency(urls, bodies, requests, rounds)
        tell(f"Single predictions a second, {_CLIENTS} clients:")
        runs = {name: partial(requests_a_second, url, bodies, clients=_CLIENTS, seconds=seconds) for name, url in urls.items()}
        findings.add(_throughput(in_turn(runs, rounds=rounds, warm_up=False)))
    findings.add(_beside_a_batch(ground, bodies, n, requests, rounds))
    return findings


def _latency(urls: dict[str, str], bodies: list[bytes], requests: int, rounds: int) -> Findings:
    tell("Single predictions, one client, p50 in ms:")
    slowest: Samples = {name: [] for name in urls}

    def p50(name: str) -> float:
        measured = latencies_ms(urls[name], bodies, lambda sent: sent >= requests)
        slowest[name].append(percentile(measured, 0.99))
        return percentile(measured, 0.5)

    usual = in_turn({name: partial(p50, name) for name in urls}, rounds=rounds, warm_up=False)
    found = Findings()
    for label, samples, target in (("p50", usual, 2.5), ("p99", slowest, 3.0)):
        middle = medians(samples)
        found.targets.append(Target(f"single_{label}", middle[_QUEUE], middle[_INSIDE], target, "ms", False))
        found.sections.append(
            _section(f"Single predictions, one client, {label}", "ms", samples, _INSIDE, f"{requests:,} requests a round.")
        )
    return found


def _throughput(samples: Samples) -> Findings:
    rate = medians(samples)
    target = Target("single_throughput_32_clients", rate[_QUEUE], rate[_INSIDE], 0.4, "requests/s")
    title = f"Single predictions, {_CLIENTS} clients"
    return Findings([target], [_section(title, "requests/s", samples, _INSIDE, "One interactive worker.")])


def _beside_a_batch(ground: Ground, bodies: list[bytes], n: int, requests: int, rounds: int) -> Findings:
    tell("Single predictions, one client, p99 in ms:")

    def idle() -> float:
        return percentile(latencies_ms(ground.stack.api_url, bodies, lambda sent: sent >= requests), 0.99)

    def busy() -> float:
        return percentile(while_batch_runs(ground, lambda stop: latencies_ms(ground.stack.api_url, bodies, stop)), 0.99)

    samples = in_turn({_IDLE: idle, _BUSY: busy}, rounds=rounds, warm_up=False)
    middle = medians(samples)
    target = Target("single_p99_while_a_batch_runs", middle[_BUSY], middle[_IDLE], 3.0, "ms", False)
    note = f"The batch scores {n:,} stored customers in two processes on the same cores."
    return Findings([target], [_section("Single predictions beside a batch, p99", "ms", samples, _IDLE, note)])


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
