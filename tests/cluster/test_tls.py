"""A cluster whose nodes encrypt their traffic, as docs/aws.md describes: the same results, and nobody else joins."""

import socket
import ssl
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from processes import ROOT, Job
from rays import Rays

SCRIPT = ROOT / "cluster" / "aws" / "certificate.sh"


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tls")
    addresses = [f"127.0.0.{number}" for number in range(1, 6)]
    subprocess.run([str(SCRIPT), str(folder), *addresses], check=True)
    return folder


def environment(folder: Path) -> dict[str, str]:
    return {
        "RAY_USE_TLS": "1",
        "RAY_TLS_SERVER_CERT": str(folder / "node.crt"),
        "RAY_TLS_SERVER_KEY": str(folder / "node.key"),
        "RAY_TLS_CA_CERT": str(folder / "ca.crt"),
    }


@pytest.fixture
def rays(certificates: Path) -> Iterator[Rays]:
    cluster = Rays(nodes=1, cpus=1, RAY_AUTH_MODE="disabled", **environment(certificates))
    yield cluster
    cluster.end()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_an_encrypted_cluster_gives_the_same_result(
    rays: Rays, certificates: Path, tmp_path: Path, job: Callable[..., Job], monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["collect", "tiny", "--episodes", 2]
    alone = job(*words, "--run", tmp_path / "alone", "--local")
    for name, value in environment(certificates).items():
        monkeypatch.setenv(name, value)
    together = job(*words, "--run", tmp_path / "together", "--address", rays.address)
    assert together.wait() == 0, together.stderr
    assert alone.wait() == 0, alone.stderr
    digests = [one.summary["stages"]["collect"]["digest"] for one in (alone, together)]
    assert digests[0] == digests[1]
    _only_the_authority_is_trusted(rays.address, certificates)


def _only_the_authority_is_trusted(address: str, certificates: Path) -> None:
    """The GCS speaks TLS with a certificate of the authority, and refuses a client without one."""
    host, _, port = address.rpartition(":")
    trusted = ssl.create_default_context(cafile=str(certificates / "ca.crt"))
    trusted.load_cert_chain(certificates / "node.crt", certificates / "node.key")
    with (
        socket.create_connection((host, int(port)), 10) as plain,
        trusted.wrap_socket(plain, server_hostname=host) as s,
    ):
        assert s.version() in ("TLSv1.2", "TLSv1.3")
    anybody = ssl.create_default_context()
    with (
        socket.create_connection((host, int(port)), 10) as plain,
        pytest.raises(ssl.SSLCertVerificationError),
        anybody.wrap_socket(plain, server_hostname=host),
    ):
        pass
