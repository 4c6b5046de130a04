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


@functools.cache
def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("mimicmotion_jax.pages"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
