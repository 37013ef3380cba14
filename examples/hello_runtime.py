"""Tasks, actors and objects: the runtime under everything else. Run it with: python examples/hello_runtime.py"""

import numpy as np

from shoal import runtime


@runtime.remote
def estimate_pi(seed: int, points: int) -> float:
    """A task: a function that runs in another process."""
    x, y = np.random.default_rng(seed).random((2, points))
    return float(4 * np.mean(x * x + y * y < 1))


@runtime.remote
class Average:
    """An actor: an object that lives in another process and keeps its state there."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def add(self, value: float) -> int:
        """Remember a value; return how many there are."""
        self.values.append(value)
        return len(self.values)

    def mean(self) -> float:
        """Return the mean of the values so far."""
        return float(np.mean(self.values))


@runtime.remote
def total(array: np.ndarray) -> float:
    """A task that reads a large array from shared memory, without a copy."""
    return float(array.sum())


def main() -> None:
    """Run tasks in parallel, feed an actor, share an array, and see an error come back."""
    estimates = [estimate_pi.remote(seed, 100_000) for seed in range(8)]  # returns at once: eight references
    average = Average.remote()
    for estimate in estimates:
        average.add.remote(estimate)  # a reference may be an argument; the runtime passes its value
    print(f"pi is about {runtime.get(average.mean.remote()):.3f}")

    array = runtime.put(np.ones(1_000_000))  # stored once, for any number of tasks
    print("totals:", runtime.get([total.remote(array) for _ in range(3)]))

    try:
        runtime.get(total.remote("no array"))
    except AttributeError as error:  # the very exception that was raised in the task
        print(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
