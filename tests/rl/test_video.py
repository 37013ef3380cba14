"""Videos of evaluations."""

import numpy as np
import pytest
from gymnasium import spaces
from learning_envs import Echo

from shoal.rl import evaluate
from shoal.rl.evaluation import video
from shoal.runtime import InputError


class Zeros:
    def __init__(self):
        self.seen = []

    def act(self, observations, *, deterministic=False):
        self.seen.append(np.array(observations))
        return np.zeros(len(observations), dtype=np.int64)


class Painted(Echo):
    """Frames of an odd size, as bright as its episode is long by then."""

    metadata = {"render_modes": ["rgb_array"], "render_fps": 10}  # noqa: RUF012

    def __init__(self, render_mode=None):
        super().__init__()
        self.render_mode, self.steps = render_mode, 0

    def reset(self, **kwargs):
        self.steps = 0
        return super().reset(**kwargs)

    def step(self, action):
        self.steps += 1
        return super().step(action)

    def render(self):
        return np.full((33, 47, 3), 20 * self.steps, dtype=np.uint8)


class Wrong(Painted):
    def render(self):
        return np.zeros((4, 4))


@pytest.mark.parametrize(
    ("path", "message"),
    [("a.avi", r"must end in \.mp4 or \.gif"), ("nowhere/a.mp4", "there is no folder 'nowhere'")],
)
def test_a_file_that_cannot_be_written_is_refused_first(path, message):
    with pytest.raises(InputError, match=message):
        evaluate(Zeros(), Echo, video=path)


def test_a_missing_package_is_named(monkeypatch, tmp_path):
    monkeypatch.setattr(video, "is_installed", lambda module: module != "imageio_ffmpeg")
    with pytest.raises(InputError, match=r"'imageio_ffmpeg', which is not installed: pip install .shoal.video."):
        evaluate(Zeros(), Echo, video=tmp_path / "a.mp4")


@pytest.fixture
def imageio():
    pytest.importorskip("imageio_ffmpeg", reason="the extra video is not installed")
    return pytest.importorskip("imageio.v2", reason="the extra video is not installed")


# imageio's reader leaves the pipes of an ffmpeg that has ended before it open.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.slow
@pytest.mark.parametrize("suffix", [".mp4", ".gif"])
def test_the_episodes_of_the_first_environment_are_filmed(imageio, tmp_path, suffix):
    path = tmp_path / f"episode{suffix}"
    with_video = evaluate(Zeros(), Painted, episodes=33, video=path)
    assert with_video == evaluate(Zeros(), Painted, episodes=33)
    frames = [np.asarray(frame) for frame in imageio.mimread(path, memtest=False)]
    brightness = [round(float(frame[..., 0].mean()) / 20) for frame in frames]
    assert brightness == 2 * list(range(with_video.lengths[0] + 1))  # its share is two, the first frame is of the reset
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("environment", "message"),
    [
        (Echo, "no video can be made of environment 'Echo'.*: its constructor takes no render_mode"),
        (Wrong, "'Wrong': render.. returned float64 .4, 4.; wanted uint8"),
    ],
)
def test_an_environment_that_cannot_be_filmed_is_refused_and_leaves_nothing(imageio, tmp_path, environment, message):
    assert isinstance(environment().observation_space, spaces.Space)
    with pytest.raises(InputError, match=message):
        evaluate(Zeros(), environment, episodes=2, video=tmp_path / "a.mp4")
    assert list(tmp_path.iterdir()) == []
