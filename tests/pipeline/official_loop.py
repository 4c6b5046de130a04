"""Compare the pipeline with the official generation loop (`official`): run by `test_official_loop` in a process.

    python official_loop.py CASE   prints the relative error of the latents and the PSNR of the frames in dB

Random weights and settings that no recorded output covers; the recorded ones are compared in `test_pipeline`.
"""

import json
import sys

import numpy as np
import torch
from official import Case, OfficialLoop

LANDSCAPE = Case(
    channels=(32, 96),
    heads=(1, 3),
    layers=1,
    vae_channels=(32, 32, 64, 64),
    frames=14,  # windows start at 0, 3, 6 and, off the beat, 8; the last decoding chunk has two frames
    height=32,
    width=64,
    options={"num_inference_steps": 4, "guidance_scale": 3.5, "noise_aug_strength": 0.05, "fps": 12}
    | {"motion_bucket_id": 90, "window_size": 6, "window_overlap": 3, "decode_chunk_size": 3},
)
PORTRAIT = Case(
    channels=(64, 32),
    heads=(2, 1),
    layers=1,
    vae_channels=(64, 32, 96, 32),
    frames=5,
    height=96,
    width=64,
    options={"num_inference_steps": 6, "guidance_scale": 1.0, "noise_aug_strength": 0.0, "fps": 25}
    | {"motion_bucket_id": 200, "window_size": 5, "window_overlap": 1, "decode_chunk_size": 8},
)


CASES = {"landscape": LANDSCAPE, "portrait": PORTRAIT}


def compare(case: Case) -> tuple[float, float]:
    """Relative L2 error of the latents, and PSNR of the frames in dB."""
    official = OfficialLoop(case)
    generator = np.random.default_rng(7)
    image = generator.integers(0, 256, (case.height, case.width, 3), np.uint8)
    poses = generator.integers(0, 256, (case.frames, case.height, case.width, 3), np.uint8)
    noise_shape = (case.options["window_size"], case.height // 8, case.width // 8, 4)
    noise, noise_aug = (generator.standard_normal(shape, np.float32) for shape in (noise_shape, image.shape))

    arrays = (torch.from_numpy(np.moveaxis(array, -1, -3).copy()) for array in (image, poses, noise, noise_aug))
    latents, frames = (out.movedim(1, -1).numpy() for out in official(*arrays, case.options))
    assert frames.std() > 0.1  # neither grey nor saturated: the comparison below has something to see
    assert np.mean((frames > 0) & (frames < 1)) > 0.5

    pipeline = official.in_jax()
    given = {"noise": noise, "noise_aug": noise_aug, "fusion": "official", "keep_reference_frame": True}
    given |= {"motion_kind": "skeletons", "progress": False, **case.options}
    ours = pipeline(image, poses, output_type="latent", **given)
    error = np.linalg.norm(ours.frames.astype(np.float64) - latents) / np.linalg.norm(latents)
    decoded = np.concatenate(list(pipeline.decode(ours.frames[None], ours.prepared.options)), axis=1)[0]
    return float(error), float(-10 * np.log10(np.mean((decoded.astype(np.float64) - frames) ** 2)))


if __name__ == "__main__":
    print(json.dumps(compare(CASES[sys.argv[1]])))
