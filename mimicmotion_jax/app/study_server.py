"""Serve the page of a study, and save the answers that it sends."""

import socket
import webbrowser
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from mimicmotion_jax.evaluation.study.files import (
    ANSWERS,
    MAX_ANSWERS,
    PAGE,
    Study,
    parse_answers,
    read_study,
    save_answers,
)
from mimicmotion_jax.runtime.errors import InputError

if TYPE_CHECKING:
    from starlette.applications import Starlette

PORT = 7880
"""Port unless told otherwise."""


def study_app(folder: Path, study: Study) -> "Starlette":
    """Return the web application: the page for participants at `/`, and `POST /answers`.

    Args:
        folder: of the study; only the page in it is served.
        study: its key.
    """
    from starlette.applications import Starlette
    from starlette.concurrency import run_in_threadpool
    from starlette.requests import Request
    from starlette.responses import PlainTextResponse, Response
    from starlette.routing import Mount, Route
    from starlette.staticfiles import StaticFiles

    async def save(request: Request) -> Response:
        content = b""
        async for block in request.stream():
            content += block
            if len(content) > MAX_ANSWERS:
                return PlainTextResponse("this is larger than any answers.", 413)
        try:
            answers = parse_answers(content, study, "what was sent")
        except InputError as error:
            return PlainTextResponse(str(error), 400)
        path = await run_in_threadpool(save_answers, folder / ANSWERS, answers)
        return PlainTextResponse(path.name, 201)

    return Starlette(
        routes=[
            Route("/answers", save, methods=["POST"]),
            Mount("/", StaticFiles(directory=folder / PAGE, html=True)),
        ]
    )


def serve_study(folder: Path, *, host: str = "127.0.0.1", port: int = PORT, open_browser: bool = False) -> None:
    """Serve a study until it is interrupted.

    Args:
        folder: of the study; answers go to `answers` in it, one file per participant, none overwritten.
        host: address to listen on; others than 127.0.0.1 can be reached from the network.
        port: 0 takes any free one.
        open_browser: open a tab.

    Raises:
        InputError: no study, no permission to write answers, a port that is taken, or the extra is not installed.
    """
    if find_spec("uvicorn") is None or find_spec("starlette") is None:
        raise InputError('serving a study needs an extra: run pip install "mimicmotion_jax[studio]".')
    import uvicorn

    study = read_study(folder)
    (folder / ANSWERS).mkdir(exist_ok=True)
    try:
        listening = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError:
        raise InputError(f"cannot listen on {host}, port {port}; choose another with --host or --port.") from None
    shown = f"[{host}]" if ":" in host else host
    url = f"http://{shown}:{listening.getsockname()[1]}"
    print(f"the study is at {url}; answers go to {folder / ANSWERS}; Ctrl-C ends it", flush=True)
    if open_browser:
        webbrowser.open(url)
    uvicorn.Server(uvicorn.Config(study_app(folder, study), log_level="warning")).run(sockets=[listening])
