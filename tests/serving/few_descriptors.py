"""Serves answers of nobody over HTTP with few file descriptors, until standard input ends; prints its URL."""

import resource
import sys
from concurrent.futures import Future

import numpy as np

from shoal.rl import Answer
from shoal.rl.serving.http import listen_for_observations


class Zero:
    def submit(self, observations, *, deterministic=True):
        done = Future()
        done.set_result(Answer(np.int64(0), 0))
        return done

    def health(self):
        return {"status": "ok"}


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_NOFILE, (int(sys.argv[1]), int(sys.argv[1])))
    server = listen_for_observations(Zero(), "127.0.0.1:0")
    print(server.url, flush=True)
    sys.stdin.read()
    server.close()
