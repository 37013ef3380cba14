"""TLS between simulators and a server: who cannot be believed is not spoken to."""

import shutil

import pytest
from gymnasium import spaces
from scripted import make_certificate

from shoal import PPO
from shoal.envs import Endpoint, ServerGoneError, SimulatorClient
from shoal.runtime import InputError

if shutil.which("openssl") is None:
    pytest.skip("needs openssl, to make certificates", allow_module_level=True)


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    folder = tmp_path_factory.mktemp("certificates")
    return {name: make_certificate(folder, name) for name in ("server", "other")} | {
        "elsewhere": make_certificate(folder, "elsewhere", "192.0.2.7")
    }


def show(monkeypatch, certificate, key):
    monkeypatch.setenv("SHOAL_SIMULATOR_TLS_CERTIFICATE", certificate)
    monkeypatch.setenv("SHOAL_SIMULATOR_TLS_KEY", key)


@pytest.fixture
def endpoint(request, certificates, monkeypatch):
    """A training that shows a certificate."""
    show(monkeypatch, *certificates[getattr(request, "param", "server")])
    monkeypatch.setenv("SHOAL_SIMULATOR_TOKEN", "secret")
    game = {"observation_space": spaces.Box(-1, 1, (2,)), "action_space": spaces.Discrete(2)}
    settings = {"preset": "none", "n_envs": 1, "n_steps": 4, "batch_size": 4, "engine": "serial"}
    with PPO("External", env_kwargs=game, listen="0", **settings) as ppo:
        yield ppo.endpoint


def test_a_server_that_is_believed(endpoint, certificates, monkeypatch):
    with SimulatorClient(endpoint.address, ca=certificates["server"][0]) as client:
        assert client.start().action_space == spaces.Discrete(2)
    monkeypatch.setenv("SHOAL_SIMULATOR_TLS_CA", certificates["server"][0])
    with SimulatorClient(endpoint.address) as client:
        assert client.start().action_space == spaces.Discrete(2)


@pytest.mark.parametrize(
    ("endpoint", "ca"), [("server", "other"), ("server", None), ("elsewhere", "elsewhere")], indirect=["endpoint"]
)
def test_who_is_not_believed_hears_nothing(endpoint, ca, certificates):
    """Signed by somebody else; without TLS; for another address."""
    believed = None if ca is None else certificates[ca][0]
    with (
        SimulatorClient(endpoint.address, ca=believed, connect_timeout=0.3) as client,
        pytest.raises(ServerGoneError, match="do both use TLS, or none"),
    ):
        client.start()


def test_files_that_cannot_be(certificates, monkeypatch, tmp_path):
    (certificate, key), (_, other_key) = certificates["server"], certificates["other"]
    show(monkeypatch, certificate, other_key)
    with pytest.raises(InputError, match="are no certificate and its key"):
        Endpoint.at("0")
    show(monkeypatch, certificate, str(tmp_path / "none"))
    with pytest.raises(InputError, match="No such file"):
        Endpoint.at("0")
    show(monkeypatch, "", key)
    with pytest.raises(InputError, match="missing is SHOAL_SIMULATOR_TLS_CERTIFICATE"):
        Endpoint.at("0")
    with pytest.raises(InputError, match="which holds no certificates"):
        SimulatorClient("127.0.0.1:1", token="secret", ca=key)
