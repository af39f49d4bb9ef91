"""DVC remotes by docs/how-to/dvc-remotes.md, on local servers of S3 and SSH (`make test-cluster`)."""

import asyncio
import subprocess
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.workflow.conftest import Project

WHY = "needs requirements-cluster.lock (make test-cluster installs it)"
moto_server = pytest.importorskip("moto.server", reason=WHY)
boto3 = pytest.importorskip("boto3", reason=WHY)
asyncssh = pytest.importorskip("asyncssh", reason=WHY)
pytest.importorskip("dvc_s3", reason=WHY)
pytest.importorskip("dvc_ssh", reason=WHY)

Configure = Callable[[Project], None]


@pytest.fixture
def s3(monkeypatch) -> Iterator[Configure]:
    """An S3 server with one empty bucket."""
    for name, value in (("ACCESS_KEY_ID", "k"), ("SECRET_ACCESS_KEY", "s"), ("DEFAULT_REGION", "us-east-1")):
        monkeypatch.setenv(f"AWS_{name}", value)
    server = moto_server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    address = f"http://{host}:{port}"
    boto3.client("s3", endpoint_url=address).create_bucket(Bucket="bucket")

    def configure(project: Project) -> None:
        project.run("dvc", "remote", "add", "-d", "lab", "s3://bucket/longtail")
        project.run("dvc", "remote", "modify", "lab", "endpointurl", address)

    try:
        yield configure
    finally:
        server.stop()


@pytest.fixture
def ssh(monkeypatch, tmp_path) -> Iterator[Configure]:
    """An SSH server that lets one key in, to a folder of its own, and is in ~/.ssh/known_hosts."""
    folder, home = tmp_path / "server", tmp_path / "home"
    folder.mkdir()
    (home / ".ssh").mkdir(parents=True, mode=0o700)
    monkeypatch.setenv("HOME", str(home))
    host_key, user_key = (asyncssh.generate_private_key("ssh-ed25519") for _ in range(2))
    user_key.write_private_key(home / ".ssh/id_ed25519")
    user_key.write_public_key(home / "authorized")

    def sftp(channel: object) -> object:
        return asyncssh.SFTPServer(channel, chroot=str(folder))

    async def listen() -> int:
        server = await asyncssh.listen(
            "127.0.0.1",
            0,
            server_host_keys=[host_key],
            authorized_client_keys=str(home / "authorized"),
            sftp_factory=sftp,
        )
        return int(server.get_port())

    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    port = asyncio.run_coroutine_threadsafe(listen(), loop).result(timeout=30)
    public = host_key.export_public_key().decode()
    (home / ".ssh/known_hosts").write_text(f"[127.0.0.1]:{port} {public}")

    def configure(project: Project) -> None:
        project.run("dvc", "remote", "add", "-d", "lab", "ssh://me@127.0.0.1/longtail")
        project.run("dvc", "remote", "modify", "lab", "port", str(port))
        project.run("dvc", "remote", "modify", "lab", "keyfile", "~/.ssh/id_ed25519")

    try:
        yield configure
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(timeout=30)


@pytest.mark.parametrize("kind", ["s3", "ssh"])
def test_what_was_pushed_is_pulled_into_a_fresh_clone_which_has_nothing_to_do(
    project, kind, request, tmp_path
):
    configure: Configure = request.getfixturevalue(kind)
    configure(project)
    project.commit("a remote")
    project.run("dvc", "push", "-q")

    subprocess.run(["git", "clone", "-q", project.path, tmp_path / "clone"], check=True)
    clone = Project(Path(tmp_path, "clone"))
    assert not list(clone.path.glob("results/stage_two/*/run.json"))
    clone.run("dvc", "pull", "-q")
    assert clone.nothing_to_do()
    assert clone.stored() == {}
    trained = list(project.path.glob("results/stage_*/*/*.safetensors"))
    assert trained
    for file in trained:
        assert (clone.path / file.relative_to(project.path)).read_bytes() == file.read_bytes()
