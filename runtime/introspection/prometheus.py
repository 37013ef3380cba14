"""Reports in Prometheus' text format (version 0.0.4)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping

from .diagnosis import Diagnosis
from .metric_table import merged
from .reports import MetricReport

_Sample = tuple[str, Mapping[str, str], float]


def render(diagnosis: Diagnosis) -> str:
    """Return the text, made of reports with the section "metrics"."""
    lines: list[str] = []
    for name, kind, description, samples in _families(diagnosis):
        lines += [f"# HELP {name} {_escape(description)}", f"# TYPE {name} {kind}"]
        lines += [f"{name}{suffix}{_labels(labels)} {_number(value)}" for suffix, labels, value in samples]
    return "\n".join([*lines, ""])


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")


def _labels(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    return "{" + ",".join(f'{key}="{_quoted(value)}"' for key, value in labels.items()) + "}"


def _quoted(text: str) -> str:
    return _escape(text).replace('"', '\\"')


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() and abs(value) < 1e15 else repr(float(value))


def _families(diagnosis: Diagnosis) -> Iterator[tuple[str, str, str, list[_Sample]]]:
    tasks: Counter[str] = Counter()
    for group, verdict in diagnosis.groups():
        tasks[verdict.state] += group.count
    yield "shoal_tasks", "gauge", "Tasks and calls that have not ended, by state.", _by("state", tasks)
    actors = Counter(diagnosis.judge_actor(actor).state for _, actor in diagnosis.actors.values())
    yield "shoal_actors", "gauge", "Actors by state.", _by("state", actors)
    processes = diagnosis.processes.values()
    yield from _node_families(diagnosis)
    objects = sum(process.objects_total for process in processes)
    yield "shoal_objects", "gauge", "Objects that processes hold references to.", [("", {}, objects)]
    held = sum(process.object_bytes for process in processes)
    yield "shoal_object_bytes", "gauge", "Bytes of the objects that processes own.", [("", {}, held)]
    counted = [report for process in processes for report in process.metrics if report.kind != "gauge"]
    for report in merged([*counted, *(report for node in diagnosis.nodes for report in node.metrics)]):
        yield report.name, report.kind, report.description, list(_samples(report))
    gauges: dict[str, tuple[MetricReport, list[_Sample]]] = {}
    for process in processes:
        for report in process.metrics:
            if report.kind == "gauge":
                _, samples = gauges.setdefault(report.name, (report, []))
                own = {"pid": str(process.pid)}
                samples += [("", {**labels, **own}, value) for _, labels, value in _samples(report)]
    for name, (report, samples) in gauges.items():
        yield name, "gauge", report.description, samples


def _by(label: str, counts: Mapping[str, int]) -> list[_Sample]:
    return [("", {label: key}, count) for key, count in sorted(counts.items())]


def _node_families(diagnosis: Diagnosis) -> Iterator[tuple[str, str, str, list[_Sample]]]:
    resources: list[_Sample] = []
    deaths: list[_Sample] = []
    for node in diagnosis.nodes:
        own = {"node": node.node.hex()}
        deaths.append(("", own, node.worker_deaths))
        for kind, amounts in (("total", node.total), ("used", node.used)):
            resources += [("", own | {"name": name, "kind": kind}, amount) for name, amount in amounts.items()]
    yield "shoal_resources", "gauge", "Resources by name, in all and in use.", resources
    yield "shoal_worker_deaths_total", "counter", "Worker processes that died without being told to.", deaths
    workers = [worker for _, worker in diagnosis.workers.values() if worker.pid is not None]
    names = [{"pid": str(worker.pid), "title": worker.title} for worker in workers]
    what = [
        ("shoal_process_cpu_seconds_total", "counter", "CPU time of each process.", "cpu_seconds"),
        ("shoal_process_resident_memory_bytes", "gauge", "Resident memory of each process.", "memory"),
        ("shoal_object_store_bytes", "gauge", "Shared memory that each process has made.", "shared_memory"),
    ]
    for name, kind, description, field in what:
        samples = [("", own, float(getattr(worker, field))) for own, worker in zip(names, workers, strict=True)]
        yield name, kind, description, list(samples)


def _samples(report: MetricReport) -> Iterator[_Sample]:
    for tags, numbers in report.values:
        labels = dict(zip(report.tag_keys, tags, strict=True))
        if report.kind != "histogram":
            yield "", labels, numbers[0]
            continue
        count, total = numbers[-2:]
        below = 0.0
        for boundary, amount in zip(report.boundaries, numbers, strict=False):
            below += amount
            yield "_bucket", labels | {"le": _number(boundary)}, below
        yield "_bucket", labels | {"le": "+Inf"}, count
        yield "_sum", labels, total
        yield "_count", labels, count
