"""What can be reached from outside: the page, what was uploaded and made, and nothing else."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from skipdiff_env import cli
from skipdiff_env.errors import SkipDiffError
from skipdiff_env.images import encode_image
from skipdiff_env.web.server import Gate, isolate, open_port
from skipdiff_env.web.workshop import Workshop

ROOT = Path(__file__).resolve().parents[2]


class Site:
    """A page that is being served, the client that asks for it, and where its server connected to."""

    def __init__(self, client: Any, folder: Path, connected: list[Any]) -> None:
        self.client, self.folder, self.connected = client, folder, connected

    def upload(self, content: bytes, name: str = "cat.png") -> Any:
        return self.client.post("/gradio_api/upload", files={"files": (name, content)})

    def ask(self, widget: str, *data: Any) -> dict[str, Any]:
        """The end of the event that hangs on a widget."""
        config = self.client.get("/config").json()
        (target,) = [c["id"] for c in config["components"] if c["props"].get("elem_id") == widget]
        (event, *_) = [d for d in config["dependencies"] if d["targets"] and d["targets"][0][0] == target]
        body = {"data": list(data), "fn_index": event["id"], "session_hash": "test", "trigger_id": target}
        assert self.client.post("/gradio_api/queue/join", json=body).status_code == 200
        with self.client.stream("GET", "/gradio_api/queue/data?session_hash=test", timeout=60) as stream:
            for line in stream.iter_lines():
                message = json.loads(line.removeprefix("data:") or "{}")
                if message.get("msg") == "process_completed":
                    return message
        raise AssertionError("the event never ended")


@pytest.fixture(scope="module")
def site(workshop: Workshop, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    httpx = pytest.importorskip("httpx")
    uvicorn = pytest.importorskip("uvicorn")
    folder = tmp_path_factory.mktemp("site")
    with pytest.MonkeyPatch.context() as patch:
        for name in ("GRADIO_TEMP_DIR", "GRADIO_EXAMPLES_CACHE", "GRADIO_ANALYTICS_ENABLED"):
            patch.setenv(name, "")
        patch.setenv("HF_HUB_DISABLE_TELEMETRY", "")
        connected: list[Any] = []
        connect = socket.socket.connect

        def noted(self: socket.socket, address: Any) -> None:
            connected.append(address)
            connect(self, address)

        patch.setattr(socket.socket, "connect", noted)
        isolate(folder)
        from skipdiff_env.web.server import application

        listening = open_port("127.0.0.1", 0)
        server = uvicorn.Server(uvicorn.Config(application(workshop, folder), log_level="warning"))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        address = f"http://127.0.0.1:{listening.getsockname()[1]}"
        with httpx.Client(base_url=address, trust_env=False, timeout=60) as client:
            while not server.started:
                assert thread.is_alive()
                time.sleep(0.05)
            yield Site(client, folder, connected)
        server.should_exit = True
        thread.join(timeout=20)


def test_the_page_and_its_parts_are_there(site: Site) -> None:
    page = site.client.get("/")
    assert page.status_code == 200 and "SkipDiff" in page.text
    assert "default-src 'self'" in page.headers["content-security-policy"]
    assert site.client.get("/config").status_code == 200
    assert site.client.get("/theme.css").status_code == 200


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd", str(ROOT / "setup.cfg"), "setup.cfg", "./setup.cfg", "../../../../etc/passwd",
        "%2Fetc%2Fpasswd", "/proc/self/environ", "//etc/passwd", ".git/config", "file:///etc/passwd",
        "http://127.0.0.1:1/", "https://example.org/", "HTTP:/example.org", "data:text/plain,hello",
    ],
)  # fmt: skip
@pytest.mark.parametrize("route", ["file=", "file/", "proxy=", "stream/"])
def test_no_file_of_the_server_is_readable(route: str, path: str, site: Site) -> None:
    for method in ("GET", "HEAD"):
        answer = site.client.request(method, f"/gradio_api/{route}{path}")
        assert answer.status_code in (403, 404)
        assert "root:" not in answer.text and "[metadata]" not in answer.text


@pytest.mark.parametrize(
    "path",
    ["static/../../../setup.cfg", "assets/..%2f..%2f..%2f..%2fpackage.json", "svelte/..%2f..%2f__init__.py"],
)
def test_no_way_out_of_the_static_files(path: str, site: Site) -> None:
    assert site.client.get(f"/{path}").status_code in (400, 403, 404)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/gradio_api/info"), ("GET", "/gradio_api/openapi.json"), ("GET", "/monitoring"),
        ("GET", "/monitoring/summary"), ("GET", "/gradio_api/runs"), ("GET", "/docs"),
        ("GET", "/openapi.json"), ("GET", "/gradio_api/vibe-code"), ("POST", "/gradio_api/vibe-code"),
        ("POST", "/gradio_api/vibe-edit"),
        ("POST", "/gradio_api/process_recording"), ("POST", "/gradio_api/component_server"),
        ("POST", "/gradio_api/run/predict"), ("POST", "/gradio_api/call/predict"),
        ("GET", "/gradio_api/deep_link"), ("GET", "/gradio_api/custom_component/a/b/c/d"),
        ("PUT", "/gradio_api/upload"), ("DELETE", "/"), ("POST", "/login"),
    ],
)  # fmt: skip
def test_the_rest_of_gradio_is_out_of_reach(method: str, path: str, site: Site) -> None:
    assert site.client.request(method, path).json() == {"detail": "not found"}


def test_uploads_are_bounded(site: Site) -> None:
    answer = site.upload(b"x" * (21 * 2**20))
    assert answer.status_code == 413
    assert not list(site.folder.rglob("cat.png"))
    assert site.client.post("/gradio_api/queue/join", content=b" " * 2_000_000).status_code == 413


def test_an_upload_becomes_the_picture_and_leaves_the_server(site: Site) -> None:
    image = np.random.default_rng(0).integers(0, 256, (70, 80, 3), dtype=np.uint8)
    (path,) = site.upload(encode_image(image, "x.png")).json()
    assert Path(path).is_relative_to(site.folder)
    before = set(site.folder.rglob("*"))
    file = {"path": path, "orig_name": "cat.png", "meta": {"_type": "gradio.FileData"}}
    done = site.ask("upload", file)
    assert done["success"], done
    assert before - set(site.folder.rglob("*")) == {Path(path), Path(path).parent}
    assert not set(site.folder.rglob("*")) - before
    # the same file of two visitors has one place
    done = site.ask("upload", file)
    assert done["success"] and "cat.png: is no longer on the server" in done["output"]["data"][1]


def test_a_bad_upload_is_a_message(site: Site) -> None:
    (path,) = site.upload(b"rubbish", "<b>cat.png").json()
    done = site.ask("upload", {"path": path, "meta": {"_type": "gradio.FileData"}})
    note = done["output"]["data"][1]
    assert (
        done["success"] and 'role="alert"' in note and "is not a readable image" in note and "<b>" not in note
    )


@pytest.mark.parametrize(
    "path",
    [
        "/etc/passwd", str(ROOT / "setup.cfg"), "setup.cfg", "/proc/self/environ", "nul\0", 7, ["x"],
        "http://example.org/a.png", "https://example.org/", " HTTP://x", "file:///etc/passwd",
    ],
)  # fmt: skip
def test_a_form_cannot_name_a_file_that_was_not_uploaded(path: Any, site: Site) -> None:
    before = set(site.folder.rglob("*"))
    meta = {"_type": "gradio.FileData"}
    for data in ({"path": path, "meta": meta}, [{"deep": {"path": path, "meta": meta}}]):
        body = {"data": [data], "fn_index": 0, "session_hash": "test"}
        assert site.client.post("/gradio_api/queue/join", json=body).status_code == 400
    up = {"path": str(site.folder / ".." / "x"), "meta": meta}
    assert site.client.post("/gradio_api/queue/join", json={"data": [up]}).status_code == 400
    assert set(site.folder.rglob("*")) == before


def test_a_form_that_is_none_is_refused(site: Site) -> None:
    for content in (b"", b"{", b"[" * 100_000):
        assert site.client.post("/gradio_api/queue/join", content=content).status_code == 400


def test_nothing_was_sent_anywhere(site: Site) -> None:
    """Runs last: whatever the tests above did, the process has connected to its own page alone."""
    assert site.connected
    hosts = {address[0] for address in site.connected if isinstance(address, tuple)}
    assert hosts == {"127.0.0.1"}


def test_the_gate_stops_reading_what_is_too_long(tmp_path: Path) -> None:
    """Whatever a request says of its length: a stream without end is cut off."""
    import asyncio

    given, sent = 0, []

    async def receive() -> dict[str, Any]:
        nonlocal given
        given += 2**20
        return {"type": "http.request", "body": b"x" * 2**20, "more_body": True}

    async def send(message: Any) -> None:
        sent.append(message)

    async def never(*_: Any) -> None:
        raise AssertionError("nothing may come through")

    scope = {"type": "http", "method": "POST", "path": "/gradio_api/upload"}
    asyncio.run(Gate(never, tmp_path)(scope, receive, send))
    assert sent[0]["status"] == 413 and given <= 22 * 2**20


def test_a_closed_gate_ends_streams_and_lets_the_rest_finish(tmp_path: Path) -> None:
    import asyncio

    def start(*headers: tuple[bytes, bytes]) -> dict[str, Any]:
        return {"type": "http.response.start", "status": 200, "headers": [*headers]}

    def part(body: bytes, more: bool = True) -> dict[str, Any]:
        return {"type": "http.response.body", "body": body, "more_body": more}

    async def endless(scope: Any, receive: Any, send: Any) -> None:
        await send(start())
        await send(part(b"a"))
        await asyncio.sleep(3600)

    async def sized(scope: Any, receive: Any, send: Any) -> None:
        await send(start((b"content-length", b"2")))
        await send(part(b"a"))
        await asyncio.sleep(0.05)
        await send(part(b"b", False))

    async def silent(scope: Any, receive: Any, send: Any) -> None:
        await asyncio.sleep(3600)

    async def answer(app: Any) -> tuple[int, bytes]:
        sent: list[Any] = []

        async def send(message: Any) -> None:
            sent.append(message)

        gate = Gate(app, tmp_path)
        answering = asyncio.create_task(gate({"type": "http", "method": "GET", "path": "/"}, send, send))
        await asyncio.sleep(0.01)
        gate.close()
        await asyncio.wait_for(answering, 60)
        assert [message.get("more_body", False) for message in sent[1:]][-1:] == [False], "it is complete"
        return sent[0]["status"], b"".join(message["body"] for message in sent[1:])

    assert asyncio.run(answer(endless)) == (200, b"a")
    assert asyncio.run(answer(sized)) == (200, b"ab")
    assert asyncio.run(answer(silent))[0] == 503


def test_the_port_is_said_to_be_taken(capsys: pytest.CaptureFixture[str]) -> None:
    with open_port("127.0.0.1", 0) as taken:
        number = taken.getsockname()[1]
        with pytest.raises(SkipDiffError, match=f"cannot listen on 127.0.0.1 port {number} .*--port"):
            open_port("127.0.0.1", number)
        assert cli.main(["web", "--port", str(number), "--device", "cpu"]) == 2
        assert "cannot listen" in capsys.readouterr().err
    with pytest.raises(SkipDiffError, match="cannot listen"):
        open_port("127.0.0.1", 99999)


def test_without_gradio_there_is_advice(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in (
        "GRADIO_TEMP_DIR",
        "GRADIO_EXAMPLES_CACHE",
        "GRADIO_ANALYTICS_ENABLED",
        "HF_HUB_DISABLE_TELEMETRY",
    ):
        monkeypatch.setenv(name, "")
    monkeypatch.setitem(sys.modules, "gradio", None)
    with pytest.raises(SkipDiffError, match=r"pip install 'skipdiff\[web\]'"):
        isolate(tmp_path)


@pytest.mark.parametrize(
    ("number", "status"), [(signal.SIGINT, 0), (signal.SIGTERM, 143), (signal.SIGHUP, 143)]
)
def test_the_command_serves_on_loopback_until_it_is_ended(
    number: signal.Signals, status: int, toy_folder: Path, tmp_path: Path
) -> None:
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    command = [sys.executable, "-m", "skipdiff_env.cli", "web", "--model", str(toy_folder), "--port", "0"]
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        # A test run in the background ignores Ctrl-C, and its children would inherit that.
        preexec_fn=lambda: signal.signal(number, signal.SIG_DFL),
    ) as server:  # fmt: skip
        assert server.stdout is not None and server.stderr is not None
        line = server.stdout.readline()
        assert line.startswith("SkipDiff's page is at http://127.0.0.1:"), server.stderr.read()
        address = line.split()[4]
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        for _ in range(200):
            try:
                assert b"SkipDiff" in opener.open(address, timeout=30).read()
                break
            except ConnectionError:
                time.sleep(0.1)
        head = 'Content-Disposition: form-data; name="files"; filename="mine.png"'
        upload = urllib.request.Request(
            f"{address}/gradio_api/upload",
            f"--x\r\n{head}\r\n\r\nmine\r\n--x--\r\n".encode(),
            {"Content-Type": "multipart/form-data; boundary=x"},
        )
        (path,) = json.load(opener.open(upload, timeout=30))
        assert Path(path).read_bytes() == b"mine" and Path(path).is_relative_to(tmp_path)
        with opener.open(f"{address}/gradio_api/heartbeat/x", timeout=30) as stream:  # as every open page has
            assert stream.read(1)
            server.send_signal(number)
            assert server.wait(timeout=60) == status
        said = server.stderr.read()
        assert said == ("skipdiff: the page is closed\n" if number == signal.SIGINT else "")
    assert not list(tmp_path.glob("skipdiff-web-*")), "the folder with uploads is removed"
