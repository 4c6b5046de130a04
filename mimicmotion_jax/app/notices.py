"""Pieces of HTML on the studio's page: notices, progress, and the preflight in its frame."""

from mimicmotion_jax.app.generation import Step
from mimicmotion_jax.pages.render import duration, render


def hint(text: str) -> str:
    """Say in the preflight's place what is missing."""
    return _notice("hint", f"{text}: what the model will see appears here at once.")


def note(text: str) -> str:
    """Say what happened."""
    return _notice("note", text)


def alert(text: str) -> str:
    """Say what went wrong."""
    return _notice("alert", text)


def progress(step: Step) -> str:
    """Say what is being done, with a bar."""
    count = f" {step.done} of {step.total}" if step.total > 1 else ""
    left = "" if not step.seconds_left else f", about {duration(step.seconds_left)} left"
    return _notice("note", f"{step.stage}{count}{left}", (step.done, step.total))


def frame(page: str) -> str:
    """Show a page of its own."""
    return render("studio_frame.html", page=page)


def _notice(kind: str, text: str, progress: tuple[int, int] | None = None) -> str:
    return render("studio_notice.html", kind=kind, text=text, progress=progress)
