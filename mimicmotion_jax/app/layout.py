"""Components of the studio's page, from top to bottom."""

from collections.abc import Mapping, Sequence
from typing import Any

import gradio as gr

from mimicmotion_jax.app import form
from mimicmotion_jax.app.notices import hint
from mimicmotion_jax.app.studio import Example
from mimicmotion_jax.pages.render import render
from mimicmotion_jax.pose.files import KEYPOINT_SUFFIXES

RESPONSIBLE_USE = "https://github.com/mimicmotion-jax/mimicmotion_jax/blob/main/RESPONSIBLE_USE.md"


class Layout:
    """Components, made inside of a `gr.Blocks`.

    Args:
        defaults: options that the checkpoint brings.
        examples: inputs to begin with.
        about: sentence about the checkpoint.

    Attributes:
        inputs: components of `studio.Inputs`.
        options: components by the names of their options.
    """

    def __init__(self, defaults: Mapping[str, Any], examples: Sequence[Example], about: str):
        gr.HTML(render("studio_header.html", about=about, responsible_use=RESPONSIBLE_USE), elem_id="header")
        with gr.Row():
            with gr.Column(scale=2, min_width=320):
                self._build_inputs(examples)
                self._build_options(defaults)
            with gr.Column(scale=3, min_width=320):
                self._build_preflight()
        self._build_results()

    def _build_inputs(self, examples: Sequence[Example]) -> None:
        gr.Markdown("## 1. Picture and motion")
        with gr.Row():
            image = gr.Image(
                label="Picture of the person", sources=["upload", "webcam", "clipboard"], type="filepath",
                image_mode=None, height=280, min_width=150, buttons=[], elem_id="image",
            )  # fmt: skip
            # The file as it is: Gradio reads fewer kinds of pictures than we do, and says less of what is wrong.
            image.preprocess = lambda payload: None if payload is None else payload.path
            video = gr.Video(
                label="Motion", sources=["upload", "webcam"], height=280, min_width=150, elem_id="motion",
                webcam_options=gr.WebcamOptions(mirror=False), buttons=[],
            )  # fmt: skip
        with gr.Accordion("Keypoints instead of video or detection", open=False) as box:
            types: list[str] = [*KEYPOINT_SUFFIXES]
            keypoints = gr.File(label="Keypoints of the motion", file_types=types, height=90, elem_id="keypoints")
            image_pose = gr.File(label="Keypoints of the picture", file_types=types, height=90, elem_id="pose")
        self.inputs: list[Any] = [image, video, keypoints, image_pose]
        self.keypoints_box = box
        self.examples: list[tuple[gr.Button, tuple[str | None, ...]]] = []
        if examples:
            gr.Markdown("No files at hand? Try an example:", elem_classes="quiet")
        with gr.Row():
            for number, example in enumerate(examples):
                button = gr.Button(
                    example.name, icon=example.image, size="sm", min_width=120, elem_id=f"example-{number}"
                )
                files = (str(example.image), None, str(example.keypoints), str(example.image_pose))
                self.examples.append((button, files))

    def _build_options(self, defaults: Mapping[str, Any]) -> None:
        self.options: dict[str, Any] = {}
        gr.Markdown("## 2. Options")
        self.options["align"] = form.component("align", defaults)
        self._build_row(form.MAIN[1:], defaults)
        for title, names in form.MORE.items():
            with gr.Accordion(title, open=False):
                self._build_row(names, defaults)

    def _build_row(self, names: Sequence[str], defaults: Mapping[str, Any]) -> None:
        with gr.Row():
            for name in names:
                with gr.Column(min_width=150):
                    self.options[name] = form.component(name, defaults)

    def _build_preflight(self) -> None:
        gr.Markdown("## 3. What the model will be given")
        self.preflight = gr.HTML(hint("Give a picture and a motion"), elem_id="preflight")
        self.people = gr.Image(
            label="Click on the person to follow (or set the option person)", visible=False, interactive=False,
            buttons=[], elem_id="people", height=300, alt_text="people in numbered boxes",
        )  # fmt: skip
        self.save_check = gr.DownloadButton("Save this check as a page", visible=False, size="sm", elem_id="save-check")

    def _build_results(self) -> None:
        gr.Markdown("## 4. Result")
        with gr.Row():
            self.generate = gr.Button("Generate", variant="primary", scale=3, elem_id="generate")
            self.stop = gr.Button("Stop", scale=1, elem_id="stop")
        self.status = gr.HTML("", elem_id="status")
        shared: dict[str, Any] = {"interactive": False, "visible": False}
        with gr.Row():
            self.preview = gr.Image(
                label="Preview of a step", buttons=[], height=320, min_width=200, elem_id="preview",
                alt_text="a frame as the model sees it at this step", **shared,
            )  # fmt: skip
            self.result = gr.Video(
                label="Result, with the motion's sound", buttons=["download"], min_width=240, elem_id="result",
                loop=True, autoplay=True, **shared,
            )  # fmt: skip
            self.comparison = gr.Video(
                label="Reference, motion, result", buttons=["download"], scale=2, min_width=300,
                elem_id="comparison", loop=True, autoplay=True, **shared,
            )  # fmt: skip
        with gr.Row(visible=False) as self.actions:
            self.download = gr.DownloadButton("Download the video", elem_id="download")
            self.again = gr.Button("Again with another seed", elem_id="again")
            self.recall = gr.Button("Back to its inputs and options", elem_id="recall")
        with gr.Accordion("Settings, as the file records them", open=False, visible=False, elem_id="settings") as box:
            self.settings = gr.JSON(show_label=False)
        self.settings_box = box
        self.gallery = gr.Gallery(
            label="Your results", columns=6, height=230, fit_columns=False, allow_preview=False, buttons=[],
            elem_id="gallery", object_fit="contain", **shared,
        )  # fmt: skip
