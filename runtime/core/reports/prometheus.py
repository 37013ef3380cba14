"""Metrics of the runtime and of the program for Prometheus, in the words of its client library."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from itertools import accumulate
from typing import TYPE_CHECKING

from .diagnosis import Diagnosis
from .metric_table import merged
from .rows import MetricState, NodeReport

if TYPE_CHECKING:
    from prometheus_client.metrics_core import Metric


class RuntimeCollector:
    """A collector of `prometheus_client`: asks for reports with the section "metrics" whenever it is scraped."""

    def __init__(self, ask: Callable[[], list[NodeReport]]) -> None:
        self._ask = ask

    def collect(self) -> Iterator[Metric]:
        """Yield all metric families."""
        diagnosis = Diagnosis(self._ask())
        yield from _counts(diagnosis)
        yield from _nodes(diagnosis)
        processes = diagnosis.processes.values()
        told = [row for process in processes for row in process.metrics if row.kind != "gauge"]
        for row in merged([*told, *(row for node in diagnosis.nodes for row in node.metrics)]):
            yield _family(row)
        gauges: dict[str, Metric] = {}
        for process in processes:
            for row in process.metrics:
                if row.kind == "gauge":
                    family = gauges.setdefault(row.name, _gauge(row.name, row.description))
                    for tags, (value,) in row.values.items():
                        own = {"pid": str(process.pid)}
                        family.add_sample(row.name, dict(zip(row.tag_keys, tags, strict=True)) | own, value)
        yield from gauges.values()


def render(nodes: list[NodeReport]) -> str:
    """Return reports with the section "metrics" in Prometheus' text format."""
    from prometheus_client import generate_latest

    return generate_latest(RuntimeCollector(lambda: nodes)).decode()


def _gauge(name: str, description: str) -> Metric:
    # Only here and where it is scraped: the library takes as long to import as the runtime to start.
    from prometheus_client.metrics_core import GaugeMetricFamily

    return GaugeMetricFamily(name, description)


def _counter(name: str, description: str) -> Metric:
    from prometheus_client.metrics_core import CounterMetricFamily

    return CounterMetricFamily(name, description)  # whose samples end in _total, as Prometheus has it


def _counts(diagnosis: Diagnosis) -> Iterator[Metric]:
    tasks: Counter[str] = Counter()
    for row in diagnosis.counted():
        tasks[row.state] += row.count
    actors = Counter(diagnosis.judge_actor(actor).state for actor in diagnosis.actors.values())
    for name, what, counts in (
        ("shoal_tasks", "Tasks and calls that have not ended, by state.", tasks),
        ("shoal_actors", "Actors by state.", actors),
    ):
        family = _gauge(name, what)
        for state, count in sorted(counts.items()):
            family.add_sample(name, {"state": state}, count)
        yield family
    processes = diagnosis.processes.values()
    for name, what, total in (
        ("shoal_objects", "Objects that processes hold references to.", sum(p.objects_total for p in processes)),
        ("shoal_object_bytes", "Bytes of the objects that processes own.", sum(p.object_bytes for p in processes)),
    ):
        family = _gauge(name, what)
        family.add_sample(name, {}, total)
        yield family


def _nodes(diagnosis: Diagnosis) -> Iterator[Metric]:
    resources = _gauge("shoal_resources", "Resources by name, in all and in use.")
    deaths = _counter("shoal_worker_deaths", "Worker processes that died without being told to.")
    for report in diagnosis.nodes:
        own = {"node": report.node.node_id}
        deaths.add_sample("shoal_worker_deaths_total", own, report.worker_deaths)
        for kind, amounts in (("total", report.node.resources_total), ("used", report.node.resources_used)):
            for name, amount in amounts.items():
                resources.add_sample("shoal_resources", own | {"name": name, "kind": kind}, amount)
    seconds = _counter("shoal_process_cpu_seconds", "CPU time of each process.")
    memory = _gauge("shoal_process_resident_memory_bytes", "Resident memory of each process.")
    store = _gauge("shoal_object_store_bytes", "Shared memory that each process has made.")
    for worker in diagnosis.workers.values():
        if worker.pid is not None:
            own = {"pid": str(worker.pid), "title": worker.title}
            seconds.add_sample("shoal_process_cpu_seconds_total", own, worker.cpu_seconds)
            memory.add_sample(memory.name, own, worker.memory)
            store.add_sample(store.name, own, worker.shared_memory)
    yield from (resources, deaths, seconds, memory, store)


def _family(row: MetricState) -> Metric:
    if row.kind == "counter":
        counter = _counter(row.name, row.description)
        for tags, (value,) in row.values.items():
            counter.add_sample(f"{counter.name}_total", dict(zip(row.tag_keys, tags, strict=True)), value)
        return counter
    from prometheus_client.metrics_core import HistogramMetricFamily
    from prometheus_client.utils import floatToGoString

    histogram = HistogramMetricFamily(row.name, row.description, labels=row.tag_keys)
    bounds = [*map(floatToGoString, row.boundaries), "+Inf"]
    for tags, (*buckets, count, total) in row.values.items():
        below = [*accumulate(buckets), count]
        histogram.add_metric(tags, list(zip(bounds, below, strict=True)), total)
    return histogram
