"""The example client in JavaScript; it needs Node 20 and its two packages, which `npm ci` fetches."""

import os
import shutil
import subprocess
import threading
from pathlib import Path

import numpy as np
import pytest
from gymnasium import spaces
from scripted import make_certificate

from shoal import PPO
from shoal.envs import Endpoint, SimulatorAnswer, SimulatorHub
from shoal.envs.external.server import SimulatorServer

EXAMPLE = Path(__file__).parents[2] / "examples" / "external_simulator_node"
PROTO = Path(__file__).parents[2] / "envs" / "proto" / "shoal_simulators.proto"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


@pytest.fixture(scope="module")
def example(tmp_path_factory):
    """The folder of the example with its packages, in the place that it has in the repository."""
    if shutil.which("node") is None or shutil.which("npm") is None:
        pytest.skip("node and npm are not installed")
    version = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout
    if int(version.strip("v\n").split(".")[0]) < 20:
        pytest.skip(f"node is {version.strip()}, and the packages need 20 or newer")
    root = tmp_path_factory.mktemp("node")
    folder = root / "examples" / EXAMPLE.name
    shutil.copytree(EXAMPLE, folder, ignore=shutil.ignore_patterns("node_modules"))
    (root / "envs" / "proto").mkdir(parents=True)
    shutil.copy(PROTO, root / "envs" / "proto")
    fetched = subprocess.run(
        ["npm", "ci", "--ignore-scripts", "--no-audit", "--no-fund"],
        cwd=folder, capture_output=True, text=True, timeout=200, check=False,
    )  # fmt: skip
    if fetched.returncode:
        pytest.skip(f"npm packages are missing: {fetched.stderr[-300:]}")
    return folder


def run_node(example, *arguments, token="secret"):
    environment = os.environ | {"SHOAL_SIMULATOR_TOKEN": token}
    return subprocess.Popen(
        ["node", *arguments], cwd=example, env=environment, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )


def test_it_trains_with_several_carts_at_once_over_tls(example, monkeypatch, tmp_path):
    monkeypatch.setenv("SHOAL_SIMULATOR_TOKEN", "secret")
    certificate, key = make_certificate(tmp_path, "server")
    for name, path in (("CERTIFICATE", certificate), ("KEY", key), ("CA", certificate)):
        monkeypatch.setenv(f"SHOAL_SIMULATOR_TLS_{name}", path)
    with PPO("CartPole-v1", listen="0", engine="serial", preset="none", n_envs=2, n_steps=64, batch_size=32) as ppo:
        node = run_node(example, "simulator.js", ppo.endpoint.address, "3", "2")
        result = ppo.train(512)
    told, _ = node.communicate(timeout=60)
    assert node.returncode == 0, told
    assert told.endswith("the simulator ends: the training has ended\n")  # Node may warn of addresses without names
    assert result.timesteps == 512
    assert 5 < result.episode_return_mean < 100


SCRIPT = """
const { SimulatorClient } = require("./client.js");
const refused = async (promise) => promise.then(() => console.log("not refused"), (error) => console.log(error.code));
(async () => {
  const client = new SimulatorClient(process.argv[2], { token: process.env.SHOAL_SIMULATOR_TOKEN });
  const seen = { image: new Uint8Array([1, 2, 3, 4]), mask: [1, 0, 1] };
  const episode = await client.start();
  console.log(JSON.stringify(await episode.act(seen)));
  await episode.log(seen, { move: [0.5, 0.25], choose: 2 }, 1.5);
  await episode.end(seen, 2, "TRUNCATED");
  await refused(episode.act(seen));
  await refused((await client.start()).act({ image: [1, 2], mask: [1, 1, 1] }));
  const other = new SimulatorClient(process.argv[2], { token: "wrong" });
  await refused(other.start());
  const otherSpaces = { action: { type: "Discrete", n: 3 } };
  await refused(new SimulatorClient(process.argv[2], { token: "secret", spaces: otherSpaces }).start());
  process.exit(0);
})();
"""


def test_nested_observations_logged_actions_and_errors(example):
    image = spaces.Box(0, 255, (2, 2), np.uint8)
    observations = spaces.Dict({"image": image, "mask": spaces.MultiBinary(3)})
    actions = spaces.Dict({"move": spaces.Box(0, 1, (2,), np.float32), "choose": spaces.Discrete(3)})
    hub, endpoint, turns = SimulatorHub(), Endpoint.at("0", token="secret"), []
    server = SimulatorServer(hub, endpoint, observations, actions)
    answer = np.zeros(1, [("move", np.float32, (2,)), ("choose", np.int64)])
    answer["move"], answer["choose"] = [0.5, 0.75], 1
    over = threading.Event()

    def answer_all():
        while not over.is_set():
            turn = hub.next(0.1)
            if turn is not None:
                turns.append(turn)
                if turn.request.kind != "end":
                    hub.answer(turn.session, SimulatorAnswer(answer, 3))

    answering = threading.Thread(target=answer_all)
    answering.start()
    (example / "script.js").write_text(SCRIPT)
    told, _ = run_node(example, "script.js", endpoint.address).communicate(timeout=60)
    over.set()
    answering.join()
    server.close("the test is over", 0.0)
    not_found, invalid, unauthenticated, precondition = 5, 3, 16, 9
    lines = told.splitlines()
    assert lines[0] in ('{"move":[0.5,0.75],"choose":1}', '{"choose":1,"move":[0.5,0.75]}')
    assert lines[1:] == [str(code) for code in (not_found, invalid, unauthenticated, precondition)]
    logged = turns[2].transition
    assert logged.logged
    assert logged.reward == 2
    assert turns[1].transition.reward == 1.5
    assert (logged.action["choose"][0], logged.action["move"][0].tolist()) == (2, [0.5, 0.25])
    assert turns[0].request.observation["image"].tolist() == [[[1, 2], [3, 4]]]
    assert turns[0].request.observation["mask"].tolist() == [[1, 0, 1]]
