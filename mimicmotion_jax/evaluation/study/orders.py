"""Random orders of the pairs of a study, and the sides on which the method is shown."""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Showing:
    """One pair as a participant sees it.

    Attributes:
        baseline: number of the baseline.
        clip: number of the clip, the same for method and baseline.
        method_left: the method's video is on the left.
    """

    baseline: int
    clip: int
    method_left: bool


def draw_orders(
    num_baselines: int, num_clips: int, num_pairs: int, num_participants: int, seed: int
) -> list[list[Showing]]:
    """Draw for each participant which pairs are shown, in which order, and on which sides.

    Per baseline the method is on the left as often as on the right, but for one pair where their number is odd. Each
    second participant sees the pairs of the one before with sides exchanged and in an order of their own.

    Args:
        num_baselines: number of baselines.
        num_clips: number of clips that each method has.
        num_pairs: pairs of each baseline for a participant, at most `num_clips`.
        num_participants: number of orders.
        seed: of all drawing.
    """
    rng = np.random.default_rng(seed)
    orders: list[list[Showing]] = []
    drawn: list[Showing] = []
    for participant in range(num_participants):
        if participant % 2:
            drawn = [dataclasses.replace(showing, method_left=not showing.method_left) for showing in drawn]
        else:
            drawn = []
            for baseline in range(num_baselines):
                clips = rng.permutation(num_clips)[:num_pairs]
                sides = rng.permutation((np.arange(num_pairs) + rng.integers(2)) % 2)
                drawn += [Showing(baseline, int(c), bool(s)) for c, s in zip(clips, sides, strict=True)]
        orders.append([drawn[place] for place in rng.permutation(len(drawn))])
    return orders
