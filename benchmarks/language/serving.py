"""Serving of a language model: 1, 4 and 16 clients at a time, beside a server that answers one after another.

    python benchmarks/language/serving.py [--seconds 4] [--rounds 3]

Both servers are there at the same time and are asked in turns, by clients in another process that stream completions of
32 tokens, each after its last one has ended. For each number of clients: requests per second, time to the first text
(median), and the median ratio over rounds. Written to rows/serving.json.
"""

import argparse
import json
import statistics
import threading
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import httpx
import torch
from gymnasium.spaces import Text

from shoal import runtime
from shoal.rl import LanguagePolicy, serve
from shoal.rl.models.spec import ModelSpec

ROW = Path(__file__).parent / "rows" / "serving.json"
TOKENS = 32
CLIENTS = (1, 4, 16)


def ask(url: str, until: float, waits: list[float], seed: int) -> None:
    """Stream one completion after another until then, and note how long each first text took."""
    with httpx.Client(timeout=60) as client:
        while time.monotonic() < until:
            body = {"prompt": "a prompt of some words", "max_tokens": TOKENS, "seed": seed, "stream": True}
            began, first = time.monotonic(), None
            with client.stream("POST", f"{url}/v1/completions", json=body) as reply:
                for line in reply.iter_lines():
                    if line and first is None:
                        first = time.monotonic() - began
            waits.append(first or 0.0)


def measured(url: str, clients: int, seconds: float) -> dict[str, float]:
    """Requests per second of so many clients, and their median time to the first text, in seconds."""
    waits: list[float] = []
    began = time.monotonic()
    threads = [threading.Thread(target=ask, args=(url, began + seconds, waits, number)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {"per_second": len(waits) / (time.monotonic() - began), "first_text": statistics.median(waits)}


def main() -> None:
    """Compare, and write the row."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    torch.set_num_threads(1)
    network = {"tokenizer": "bytes", "width": 128, "layers": 4, "heads": 4, "context": 256}
    policy = LanguagePolicy(ModelSpec("language_model", Text(8), Text(8), network), seed=1)
    runtime.init()
    rows: list[dict[str, Any]] = []
    with (
        ProcessPoolExecutor(1, get_context("spawn")) as elsewhere,  # else clients would share the server's interpreter
        serve(policy, http="127.0.0.1:0") as together,
        serve(policy, http="127.0.0.1:0", max_batch_size=1) as one_by_one,
    ):
        servers = {"continuous": together.http_address, "one_by_one": one_by_one.http_address}
        for clients in CLIENTS:
            found: dict[str, list[dict[str, float]]] = {name: [] for name in servers}
            for _ in range(given.rounds):
                for name, url in servers.items():
                    asked = elsewhere.submit(measured, str(url), clients, given.seconds)
                    found[name].append(asked.result())
            row: dict[str, Any] = {"clients": clients}
            for name, each in found.items():
                row[name] = {key: round(statistics.median(one[key] for one in each), 4) for key in each[0]}
            for key in ("per_second", "first_text"):
                pairs = zip(found["continuous"], found["one_by_one"], strict=True)
                row[f"ratio_{key}"] = round(statistics.median(ours[key] / theirs[key] for ours, theirs in pairs), 2)
            rows.append(row)
            print(row, flush=True)
    runtime.shutdown()
    ROW.write_text(
        json.dumps({"row": "serving", "tokens": TOKENS, **vars(given), "network": network, "clients": rows}) + "\n"
    )


if __name__ == "__main__":
    main()
