"""Serve the studio: on this machine alone unless told otherwise, files from one folder, with a password on request."""

import dataclasses
import os
import signal
import socket
import tempfile
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mimicmotion_jax.pipeline import MimicMotionPipeline
from mimicmotion_jax.runtime.errors import InputError
from mimicmotion_jax.sharding import describe_mesh

if TYPE_CHECKING:
    from mimicmotion_jax.app.studio import Example

INSTALL = 'the studio needs Gradio: run pip install "mimicmotion_jax[studio]".'
_ADDRESS = "cannot listen on {}, port {}: it is taken or not allowed; choose another --port or --host."
MAX_FRAMES = 5000
"""Default length of the longest video that is made: over three minutes at 25 frames per second."""

AUTH_VARIABLE = "MIMICMOTION_STUDIO_AUTH"
"""Environment variable with USER:PASSWORD."""


def check_installed() -> None:
    """Check that the extra is installed.

    Raises:
        InputError: it is not.
    """
    if find_spec("gradio") is None:
        raise InputError(INSTALL)


def check_address(host: str, port: int | None) -> None:
    """Check that the studio can listen there, before weights are loaded.

    Raises:
        InputError: an address that is not this machine's, or a port that is taken or not allowed.
    """
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((address[0], port or 0))
    except (OSError, OverflowError):
        raise InputError(_ADDRESS.format(host, port or "any")) from None


def read_auth(file: Path | None) -> list[tuple[str, str]] | None:
    """Users and passwords, from a file of USER:PASSWORD lines, else from `AUTH_VARIABLE`; None without either.

    Raises:
        InputError: a file that cannot be read, or a line without a colon.
    """
    if file is not None:
        try:
            lines = file.read_text().splitlines()
        except (OSError, UnicodeDecodeError):
            raise InputError(f"{file} cannot be read; give a text file of USER:PASSWORD lines.") from None
        source = str(file)
    else:
        lines, source = [os.environ.get(AUTH_VARIABLE, "")], AUTH_VARIABLE
    pairs = [line.strip().partition(":") for line in lines if line.strip()]
    is_empty = not pairs and file is not None
    if is_empty or not all(user and colon and password for user, colon, password in pairs):
        raise InputError(f"{source} must hold USER:PASSWORD.")
    return [(user, password) for user, _, password in pairs] or None


@dataclasses.dataclass
class Server:
    """A studio that is being served.

    Attributes:
        url: address.
        blocks: Gradio's page.
        folder: uploads and results.
    """

    url: str
    blocks: Any
    folder: tempfile.TemporaryDirectory[str]

    def close(self) -> None:
        """Stop serving, and remove uploads and results."""
        self.blocks.close(verbose=False)
        self.folder.cleanup()


def serve(
    pipeline: MimicMotionPipeline,
    *,
    make_examples: Callable[[Path], Sequence["Example"]] = lambda folder: (),
    about: str = "",
    host: str = "127.0.0.1",
    port: int | None = None,
    auth: list[tuple[str, str]] | None = None,
    max_upload_mb: int = 500,
    max_frames: int = MAX_FRAMES,
    timings: Path | None = None,
    open_browser: bool = False,
    block: bool = True,
) -> Server:
    """Serve the studio until it is interrupted.

    Args:
        pipeline: the networks.
        make_examples: writes examples into a folder.
        about: sentence about the checkpoint, in Markdown.
        host: address to listen on; others than 127.0.0.1 can be reached from the network.
        port: None takes the first free one from 7860 on.
        auth: users and passwords.
        max_upload_mb: largest file that may be uploaded.
        max_frames: length of the longest video that is made.
        timings: file that keeps how long videos took, for the next run.
        open_browser: open a tab.
        block: wait for Ctrl-C; otherwise the page is served until `close()` of what is returned.

    Raises:
        InputError: Gradio is not installed, or the port is taken.
    """
    check_installed()
    check_address(host, port)
    holder = tempfile.TemporaryDirectory(prefix="mimicmotion-studio-")
    folder = Path(holder.name).resolve()
    # Gradio serves and accepts files of this folder only; set before its components are made.
    os.environ["GRADIO_TEMP_DIR"] = str(folder)
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    from mimicmotion_jax.app.look import CSS, theme
    from mimicmotion_jax.app.page import StudioPage
    from mimicmotion_jax.app.studio import Studio
    from mimicmotion_jax.app.timing import Timing

    unet = pipeline.config.unet.block_out_channels, pipeline.unet.conv_in.kernel.dtype
    timing = Timing(timings, f"{describe_mesh(pipeline.mesh)} {unet}")
    blocks = StudioPage(Studio(pipeline, folder, max_frames, timing), make_examples(folder), about).blocks
    blocks.queue(max_size=32)
    try:
        blocks.launch(
            server_name=f"[{host}]" if ":" in host else host,
            server_port=port,
            auth=auth,
            max_file_size=f"{max_upload_mb}mb",
            inbrowser=open_browser,
            prevent_thread_lock=True,
            quiet=True,
            share=False,
            show_error=True,
            footer_links=["api"],
            theme=theme(),
            css=CSS,
        )
    except OSError:  # taken since
        holder.cleanup()
        raise InputError(_ADDRESS.format(host, port)) from None
    server = Server(str(blocks.local_url), blocks, holder)
    if block:
        signal.signal(signal.SIGTERM, signal.default_int_handler)  # a kill ends it as Ctrl-C does
        print(f"the studio is at {server.url}", flush=True)
        try:
            blocks.block_thread()
        finally:
            server.close()
    return server
