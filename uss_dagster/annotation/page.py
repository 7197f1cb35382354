"""The server of ``uss annotate``: the page ``report/assets/annotate.html``, and what its script asks for.

The server listens on 127.0.0.1 only, and answers only requests that name it so (``loopback``). Images have numbers, never paths.
"""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Callable
from importlib import resources

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from uss_dagster.annotation.document import Conflict
from uss_dagster.annotation.workbench import LONGEST, Workbench
from uss_dagster.errors import UsageError, UssError, from_os_error
from uss_dagster.loopback import HOST, headers, is_own, port_in_use, refusal

BODY_BYTES = 16 * 1024**2
READ_SECONDS = 30.0
"""In which the body of a request must have arrived."""
FILES = {
    "/": ("annotate.html", "text/html"),
    **{f"/{name}.js": (f"{name}.js", "text/javascript") for name in ("annotate", "annotate-masks")},
    "/annotate.css": ("annotate.css", "text/css"),
}
HEADERS = headers("'self' data:")


def serve(workbench: Workbench, port: int, tell: Callable[[str], None]) -> None:
    """Serve the page until interrupted.

    Parameters
    ----------
    workbench : Workbench
    port : int
        0 for any that is free.
    tell : callable
        Called with the address of the page.

    Raises
    ------
    UsageError
        The port cannot be used.
    """
    listener = listen(port)
    tell(f"http://{HOST}:{listener.getsockname()[1]}/  (Ctrl-C ends it; everything is saved as you go)")
    make_server(workbench, listener).run([listener])


def listen(port: int) -> socket.socket:
    """A socket that is bound to a port of this machine's own address."""
    listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((HOST, port))
        listener.listen(128)  # from now on requests wait for the server to begin
    except OSError as error:
        listener.close()
        raise UsageError(port_in_use(port, error)) from None
    return listener


def make_server(workbench: Workbench, listener: socket.socket) -> uvicorn.Server:
    """A server that does not serve yet; ``run([listener])`` makes it."""
    config = uvicorn.Config(
        make_app(workbench, listener.getsockname()[1]),
        loop="asyncio",
        http="h11",
        ws="none",
        lifespan="off",
        log_level="critical",
        access_log=False,
        server_header=False,
        timeout_keep_alive=30,
        timeout_graceful_shutdown=2,
    )
    return uvicorn.Server(config)


def make_app(workbench: Workbench, port: int) -> Starlette:
    """What answers on a port."""
    reads: dict[str, Callable[[Request], Response]] = {
        "/images": lambda request: JSONResponse(workbench.listing()),
        "/picture": lambda request: Response(workbench.jpeg(_number(request), _number(request, "side", LONGEST)), media_type="image/jpeg"),
        "/sheet": lambda request: JSONResponse(workbench.sheet(_number(request))),
        "/pool": lambda request: Response(workbench.pool(_number(request)), media_type="application/octet-stream"),
        "/ranking": lambda request: JSONResponse(workbench.ranking()),
    }
    routes = [Route(path, _file) for path in FILES]
    routes += [Route(path, _read(answer)) for path, answer in reads.items()]
    routes.append(Route("/sheet", _change(workbench), methods=["PUT"]))
    handlers = {UssError: _refused, OSError: _failed, HTTPException: _unknown, TimeoutError: _late, ClientDisconnect: _late}
    return Starlette(routes=routes, middleware=[Middleware(Guard, port=port)], exception_handlers=handlers)  # type: ignore[arg-type]


class Guard:
    """Refuses requests that do not name this server, and adds the headers that every answer has."""

    def __init__(self, app: ASGIApp, port: int) -> None:
        self.app, self.port, self.refusal = app, port, JSONResponse(refusal(port), 403)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message).update(HEADERS)
            await send(message)

        sent = Headers(scope=scope)
        known = is_own(sent.get("host"), sent.get("origin"), self.port)
        await (self.app if known else self.refusal)(scope, receive, send_with_headers)


def _file(request: Request) -> Response:
    name, kind = FILES[request.url.path]
    return Response((resources.files("uss_dagster.report") / "assets" / name).read_bytes(), media_type=kind)


def _read(answer: Callable[[Request], Response]) -> Callable[[Request], Response]:
    """An endpoint for which what is not there is not found. It runs in a thread: Starlette awaits only coroutines."""

    def endpoint(request: Request) -> Response:
        try:
            return answer(request)
        except (KeyError, ValueError):
            raise HTTPException(404) from None

    return endpoint


def _change(workbench: Workbench) -> Callable[..., object]:
    async def endpoint(request: Request) -> Response:
        try:
            value = json.loads(await _body(request))
        except (ValueError, RecursionError):
            raise UsageError("The change is not JSON.") from None
        try:
            return JSONResponse(await run_in_threadpool(workbench.change, _number(request), value))
        except (KeyError, ValueError):
            raise HTTPException(404) from None

    return endpoint


async def _body(request: Request) -> bytes:
    """The body, of limited size and in limited time."""
    if request.headers.get("content-type", "").partition(";")[0] != "application/json":
        raise HTTPException(415)
    length, data = request.headers.get("content-length", "0"), bytearray()
    if not length.isdecimal() or int(length) > BODY_BYTES:
        raise HTTPException(413)
    async with asyncio.timeout(READ_SECONDS):
        async for piece in request.stream():
            data += piece
            if len(data) > BODY_BYTES:
                raise HTTPException(413)
    return bytes(data)


def _number(request: Request, name: str = "number", default: int | None = None) -> int:
    text = request.query_params.get(name)
    if text is None and default is not None:
        return default
    if text is None or not (text.isascii() and text.isdecimal()) or len(text) > 9:
        raise KeyError(name)
    return int(text)


def _refused(request: Request, error: UssError) -> Response:
    return JSONResponse({"error": str(error)}, 409 if isinstance(error, Conflict) else 400)


def _failed(request: Request, error: OSError) -> Response:
    return JSONResponse({"error": f"It was not saved: {from_os_error(error) or error}"}, 507)


SENTENCES = {413: f"A change may have {BODY_BYTES // 1024**2} MiB at most.", 415: "A change is JSON."}


def _unknown(request: Request, error: HTTPException) -> Response:
    return JSONResponse({"error": SENTENCES.get(error.status_code, "There is nothing of that name here.")}, error.status_code)


def _late(request: Request, error: Exception) -> Response:
    return JSONResponse({"error": f"The change did not arrive within {READ_SECONDS:g} seconds."}, 408)
