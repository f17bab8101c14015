"""Serves the page on a port: a gate in front of Gradio, a private folder for uploads, and no telemetry.

Gradio brings more routes than this page needs (a proxy, a fetcher of URLs, editors, dashboards). The gate
lets through what the page asks for and nothing else, limits the size of requests, and forbids the browser to
load anything from elsewhere.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import re
import socket
import tempfile
import threading
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from pathlib import Path
from typing import Any

from ..errors import SkipDiffError
from .pictures import MAX_BYTES
from .workshop import Workshop

READ = re.compile(
    r"/(|config/?|theme\.css|favicon\.ico|manifest\.json|(static|assets|svelte)/.+"
    r"|gradio_api/(theme\.css|app_id/?|startup-events|upload_progress|queue/data|heartbeat/\w+|file=(?!\w+:).+))"
)
"""Paths that may be fetched; for ``file=``, Gradio itself refuses files that were not uploaded or made."""
WRITE = re.compile(r"/gradio_api/(upload|queue/join|cancel|reset)/?")
"""Paths to which forms may be posted."""
MAX_FORM = 2**20
"""Maximum size of a posted form in bytes; the page's own forms have a few hundred bytes."""
MULTIPART = 2**16
"""Number of bytes that a request may have in addition to an uploaded file."""
POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; object-src 'none'; base-uri 'self'; "
    "frame-ancestors 'self'"
)
HEADERS = [
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
]

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Message, Receive, Send], Awaitable[None]]


class Gate:
    """ASGI middleware that lets through what the page needs.

    Args:
        app: the application behind it.
        folder: folder of uploads and results; forms may name only files in it.
    """

    def __init__(self, app: Application, folder: Path) -> None:
        self.app, self.folder = app, folder.resolve()
        self._closed = asyncio.Event()

    def close(self) -> None:
        """End responses that are still being sent, such as event streams; call it in the server's loop."""
        self._closed.set()

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            return await self.app(scope, receive, send)
        if scope["type"] != "http":
            return None
        method, path = scope["method"], scope["path"]
        wanted = READ if method in ("GET", "HEAD") else WRITE if method == "POST" else None
        if wanted is None or not wanted.fullmatch(path):
            return await _refuse(send, 404, "not found")
        if method == "POST":
            upload = path.startswith("/gradio_api/upload")
            body = await _read(receive, MAX_BYTES + MULTIPART if upload else MAX_FORM)
            if body is None:
                megabytes = (MAX_BYTES if upload else MAX_FORM) // 2**20
                return await _refuse(send, 413, f"larger than the {megabytes} MB allowed here")
            if not upload and not _names_files_in(body, self.folder):
                return await _refuse(send, 400, "malformed, or a file that was not uploaded here")
            receive = _again(body, receive)
        await self._answer(scope, receive, send)

    async def _answer(self, scope: Message, receive: Receive, send: Send) -> None:
        """Let the application answer; if the gate is closed meanwhile, end an answer of unknown length."""
        begun = sized = ended = False

        async def guarded(message: Message) -> None:
            nonlocal begun, sized, ended
            if message["type"] == "http.response.start":
                begun, sized = True, b"content-length" in dict(message.get("headers", ()))
                message["headers"] = [*message.get("headers", ()), *HEADERS]
            ended = message["type"] == "http.response.body" and not message.get("more_body", False)
            await send(message)

        async def answer() -> None:
            await self.app(scope, receive, guarded)

        answering, closing = asyncio.create_task(answer()), asyncio.create_task(self._closed.wait())
        try:
            await asyncio.wait([answering, closing], return_when=asyncio.FIRST_COMPLETED)
            if answering.done() or sized:
                return await answering
        finally:
            closing.cancel()
            answering.cancel()
        await asyncio.gather(answering, return_exceptions=True)
        if not begun:
            await _refuse(send, 503, "the page is closed")
        elif not ended:
            await send({"type": "http.response.body", "body": b""})


async def _read(receive: Receive, most: int) -> bytes | None:
    """Return a request's body; None if it is longer than ``most``, whatever its header says."""
    parts, size, more = [], 0, True
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            break
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > most:
            return None
        more = message.get("more_body", False)
    return b"".join(parts)


def _again(body: bytes, receive: Receive) -> Receive:
    """Return a ``receive`` that first gives a body that was already read, and then calls ``receive``."""
    waiting = [body]

    async def give() -> Message:
        if waiting:
            return {"type": "http.request", "body": waiting.pop(), "more_body": False}
        return await receive()

    return give


def _names_files_in(body: bytes, folder: Path) -> bool:
    """Return whether a form is JSON in which every file lies in ``folder``.

    Gradio copies the files that a form names, including URLs, to where they can be fetched. Its own check of
    the paths is off in an application that is mounted and not launched.
    """
    try:
        left: list[Any] = [json.loads(body)]
    except (ValueError, RecursionError):
        return False
    while left:
        item = left.pop()
        if isinstance(item, list):
            left += item
        elif isinstance(item, dict):
            path = item.get("path")
            if path and not (isinstance(path, str) and _lies_in(path, folder)):
                return False
            left += item.values()
    return True


def _lies_in(path: str, folder: Path) -> bool:
    try:
        return Path(path).resolve().is_relative_to(folder)
    except (OSError, ValueError):  # for example because of a null character
        return False


async def _refuse(send: Send, status: int, text: str) -> None:
    body = json.dumps({"detail": text}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode()), *HEADERS]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def isolate(folder: str | os.PathLike[str]) -> None:
    """Tell Gradio, before it is imported, to keep its files in ``folder`` and to send nothing anywhere."""
    os.environ["GRADIO_TEMP_DIR"] = str(Path(folder) / "files")
    os.environ["GRADIO_EXAMPLES_CACHE"] = str(Path(folder) / "examples")
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    try:
        import gradio  # noqa: F401
    except ImportError:
        raise SkipDiffError("the web page needs Gradio: pip install 'skipdiff[web]'") from None


def open_port(host: str, port: int) -> socket.socket:
    """Open a listening socket.

    Raises:
        SkipDiffError: if the port or the address is not available.
    """
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError) as error:
        why = getattr(error, "strerror", None) or str(error)
        raise SkipDiffError(
            f"cannot listen on {host} port {port} ({why}): give another --host or --port"
        ) from None


def serve(workshop: Workshop, host: str, port: int, ready: Callable[[str], None]) -> None:
    """Serve the page until Ctrl-C.

    Args:
        workshop: the workshop that does the work.
        host: address to listen on.
        port: port to listen on; 0 takes a free one.
        ready: function that is called with the page's address when it can be opened.

    Raises:
        SkipDiffError: if Gradio is missing, or the port or the address is not available.
    """
    with open_port(host, port) as listening, tempfile.TemporaryDirectory(prefix="skipdiff-web-") as folder:
        isolate(folder)
        import uvicorn

        gate = application(workshop, Path(folder))

        class Server(uvicorn.Server):
            async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
                workshop.close()
                gate.close()
                await super().shutdown(sockets)

        settings = uvicorn.Config(gate, log_level="warning", timeout_graceful_shutdown=1, server_header=False)
        number = listening.getsockname()[1]
        ready(f"http://{f'[{host}]' if ':' in host else host}:{number}")
        with _preparing(workshop):
            Server(settings).run(sockets=[listening])


@contextlib.contextmanager
def _preparing(workshop: Workshop) -> Iterator[None]:
    """Prepare the example for the first visitor in a thread; if that fails, the page shows the error."""

    def prepare() -> None:
        with contextlib.suppress(SkipDiffError):
            workshop.example()

    thread = threading.Thread(target=prepare)
    thread.start()
    try:
        yield
    finally:  # a thread within torch would crash the process at its end, and jobs write files
        workshop.close()
        workshop.wait()
        thread.join()


def application(workshop: Workshop, folder: Path) -> Gate:
    """Make the gate and the page behind it; call :func:`isolate` first.

    Args:
        workshop: the workshop that does the work.
        folder: folder in which the page keeps its files.
    """
    from fastapi import FastAPI

    from .page import mount

    bare = FastAPI(openapi_url=None, docs_url=None, redoc_url=None)
    return Gate(mount(bare, workshop, folder), folder)
