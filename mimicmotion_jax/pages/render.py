"""Fill the templates: `base.html` is the frame of every page, `style.css` its style, `parts.html` what pages share."""

import functools
from typing import Any

import jinja2

from mimicmotion_jax import __version__

GENERATOR = "mimicmotion_jax"
"""Software that a page names as its generator: the mark of our own files."""


def render(template: str, /, **values: Any) -> str:
    """Return the page of a template, all values escaped but for those that are `Markup`.

    Args:
        template: file in `templates`, for example "preflight.html".
        values: names that the template uses; a missing one is an error.
    """
    return _environment().get_template(template).render(generator=f"{GENERATOR} {__version__}", **values)


def duration(seconds: float) -> str:
    """Write a duration for people: "7.0 s", "2 min 5 s" or "3 h 0 min"."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


@functools.cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("mimicmotion_jax.pages"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
