"""Pictures of the ablation's videos like the paper's figures 5, 7, 8 and 9."""

from collections.abc import Mapping, Sequence

import matplotlib.pyplot as plt
import numpy as np

from card.ablation_world import POSES
from card.small_scores import Scene, Videos
from mimicmotion_jax.metrics.temporal import frame_differences, yt_slice
from mimicmotion_jax.video.compose import side_by_side
from mimicmotion_jax.video.image import resize

_HAND_SIDE = 224  # pixels of an enlarged hand's picture


def differences_plot(
    truth: np.ndarray, videos: Mapping[str, np.ndarray], seams: Mapping[str, Sequence[int]]
) -> np.ndarray:
    """Plot the frame differences of one video, true and as every variant generates it: the paper's figure 5.

    Args:
        truth: frames [f, h, w, 3].
        videos: the same frames by variant.
        seams: by variant, the frames with which a new window begins, 0 for the first after the reference.

    Returns:
        The plot, uint8 [h, w, 3].
    """
    figure, axes = plt.subplots(figsize=(9, 3), dpi=100, layout="constrained")
    for name, frames in {"true": truth, **videos}.items():
        curve = frame_differences(frames[1:])
        (line,) = axes.plot(np.arange(1, len(curve) + 1), curve, label=name, linewidth=1.2)
        marked = np.array(seams.get(name, ()), int)
        axes.plot(marked, curve[marked - 1], "o", markersize=4, color=line.get_color())
    axes.set(
        xlabel="frame (dots: a new window begins)", ylabel="difference to the frame before", xlim=(1, len(truth) - 2)
    )
    axes.legend(loc="upper right", ncols=1 + len(videos), frameon=False)
    figure.canvas.draw()
    drawn = np.asarray(figure.canvas.buffer_rgba())[..., :3].copy()
    plt.close(figure)
    return drawn


def mistakes_strip(scenes: Sequence[Scene], videos: Mapping[str, Videos], most: int = 6) -> np.ndarray:
    """Draw a row per scene: the frame amid the first stretch with a mistaken hand, as every variant generates it.

    This is the paper's figure 7.

    Args:
        scenes: those with mistakes come first.
        videos: of all scenes, by the variant's name.
        most: number of rows.
    """
    rows = []
    for number in sorted(range(len(scenes)), key=lambda n: not scenes[n]["mistaken"][1:].any())[:most]:
        scene = scenes[number]
        time = _amid(scene["mistaken"][1:]) + 1
        panels = {"reference": scene["frames"][0], "pose": scene["poses"][time]}
        panels |= {"pose, threshold": scene[POSES["threshold"]][time], "true": scene["frames"][time]}
        panels |= {name: those[number][time] for name, those in videos.items()}
        rows.append(side_by_side(list(panels.values()), height=2 * scene["frames"].shape[1], labels=list(panels))[0])
    return np.concatenate(rows)


def slices_strip(scenes: Sequence[Scene], videos: Mapping[str, Videos], most: int = 6) -> np.ndarray:
    """Draw a row per scene: its middle column of pixels over time, true and as every variant generates it.

    This is the paper's figure 9.
    """
    rows = []
    for number, scene in enumerate(scenes[:most]):
        middle = scene["frames"].shape[2] // 2
        panels = {"true": scene["frames"], **{name: those[number] for name, those in videos.items()}}
        cut = [yt_slice(frames[1:], middle).repeat(4, axis=1) for frames in panels.values()]
        rows.append(side_by_side(cut, labels=list(panels))[0])
    return np.concatenate(rows)


def hands_strip(scenes: Sequence[Scene], videos: Mapping[str, Videos], most: int = 6) -> np.ndarray:
    """Draw a row per scene: the hand and the frame where most of one is seen, true and by every variant, enlarged.

    This is the paper's figure 8. Scenes in which no hand is ever seen are left out.
    """
    rows = []
    for number, scene in enumerate(scenes):
        seen = scene["exact"].hands_score[1:, 0].mean(-1)
        if not seen.any() or len(rows) == most:
            continue
        time, side = np.unravel_index(seen.argmax(), seen.shape)
        time += 1
        panels = {"true": scene["frames"][time], **{name: those[number][time] for name, those in videos.items()}}
        crops = [_around_hand(frame, scene, time, side) for frame in panels.values()]
        rows.append(side_by_side(crops, labels=list(panels))[0])
    return np.concatenate(rows)


def _around_hand(frame: np.ndarray, scene: Scene, time: int, side: int) -> np.ndarray:
    """Cut out the square that is a quarter of the picture's height around a hand (0: left), enlarged."""
    height, width = frame.shape[:2]
    points, score = scene["exact"].hands[time, 0, side], scene["exact"].hands_score[time, 0, side]
    x, y = points[score > 0].mean(0) * (width, height)
    size = height // 4
    left, top = (int(np.clip(middle - size / 2, 0, end - size)) for middle, end in ((x, width), (y, height)))
    return resize(frame[top : top + size, left : left + size], _HAND_SIDE, _HAND_SIDE)


def _amid(there: np.ndarray) -> int:
    """Middle of the first stretch of True values, or of everything."""
    if not there.any():
        return len(there) // 2
    first = int(there.argmax())
    length = int((~there[first:]).argmax()) or len(there) - first
    return first + length // 2
