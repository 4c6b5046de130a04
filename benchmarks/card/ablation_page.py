"""Table of the ablation's rows in Markdown, written beside their JSON file."""

from collections.abc import Mapping

from card.ablation_sizes import SEEDS
from card.ablation_table import VARIANTS, format_table, summarise
from card.results import Results, Row, finished


def row_name(variant: str, seed: int) -> str:
    """Name of a row in the results."""
    return f"{variant}, seed {seed}"


def table_rows(rows: Mapping[str, Row]) -> list[Row]:
    """Rows for the table: those of complete seeds, or all that are made as long as no seed is complete."""
    made = [row for row in rows.values() if "scores" in row]
    complete = [seed for seed in SEEDS if sum(row["seed"] == seed for row in made) == len(VARIANTS)]
    return [row for row in made if row["seed"] in complete] or made


def write_page(results: Results, part: str) -> None:
    """Write the table, once there is a row.

    Args:
        results: with rows of `ablation.Ablation` and a row "plan".
        part: part of the experiment that made them.
    """
    rows = results.parts[part]
    plan, made = rows["plan"], table_rows(rows)
    if not made:
        return
    missing = sum(not finished(rows.get(row_name(name, seed))) for seed in SEEDS for name in VARIANTS)
    test = plan["test_set"]
    begun = "Trained on from the small model of the package" if plan["goes_on"] else "Trained from random parameters"
    drawn = "data order and noise" if plan["goes_on"] else "parameters, data order and noise"
    lines = [
        "# Ablation on the synthetic world, on a card",
        "",
        *format_table(summarise(made), plan["baselines"]),
        "",
        f"Mean ± sample standard deviation over the seeds, which draw {drawn} anew; rows of one seed share "
        "them. Rows in italics need no trained model: nothing moves, and true frames through the VAE. "
        "The detector makes the mistakes of the paper's figure 7 in the test sequences: a hand is found in the place "
        f"of the other one in {test['mistaken']:.0%} of the frames, an elbow that is hidden in "
        f"{test['hidden_elbow']:.0%}. Hands are scored where they really are, once more in the frames of the former "
        "kind alone. Seam discontinuity is the frame difference where windows change over that elsewhere; the modes of "
        "fusion have their seams at different frames, so each is to be read against the true videos there. The "
        "stand-ins are Frechet distances like FID-VID and FVD, by two small networks that tell the synthetic world's "
        "motions apart (benchmarks/stand_in.py): they compare with nothing outside this table.",
        "",
        f"{begun}, {plan['steps']} steps of {plan['clips']} clips of {plan['window']} frames, from "
        f"{plan['scenes']} scenes; "
        f"{test['sequences']} test sequences of {test['frames']} frames at {plan['size']}; VAE of {plan['vae']}; "
        f"{results.content.get('device', 'device unknown')}. Everything else is in {results.path.name}.",
    ]
    if missing:
        lines += ["", f"Unfinished: {missing} rows of {len(SEEDS) * len(VARIANTS)} are missing."]
    results.path.with_suffix(".md").write_text("\n".join(lines) + "\n")
