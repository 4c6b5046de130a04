"""Seeds of 64 bits are taken wherever a seed is, and those below 2^32 give what they always gave."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from mimicmotion_jax.config import load_config
from mimicmotion_jax.diffusion.config import SamplingConfig
from mimicmotion_jax.diffusion.noise import frame_noise
from mimicmotion_jax.evaluation.config import EvaluateConfig
from mimicmotion_jax.inference.job_list import read_jobs
from mimicmotion_jax.models.build import init_network
from mimicmotion_jax.models.config import ModelConfig
from mimicmotion_jax.runtime.errors import InputError
from mimicmotion_jax.runtime.seeds import fold_seed
from mimicmotion_jax.training.autoencoder.loss import draw_noise
from mimicmotion_jax.training.config import TrainConfig
from mimicmotion_jax.training.objective import sample_keys

COMFY = 302125040363647
ONE = jnp.arange(1, dtype=jnp.uint32)


def test_small_seeds_stay_and_all_bits_of_large_ones_count():
    assert [fold_seed(seed) for seed in (0, 7, 2**31, 2**32 - 1)] == [0, 7, 2**31, 2**32 - 1]
    large = [COMFY, COMFY + 1, COMFY % 2**32 + 2**32, 2**32, 2**63, 2**64 - 1]
    folded = [fold_seed(seed) for seed in large]
    assert len({*folded, *(seed % 2**32 for seed in large)}) == len(folded) + len({seed % 2**32 for seed in large})
    assert all(0 <= seed < 2**32 for seed in folded)
    assert fold_seed(COMFY) == np.random.SeedSequence(COMFY).generate_state(1)[0]


def test_configurations_and_job_lists_take_them(tmp_path):
    for cls in (SamplingConfig, TrainConfig, EvaluateConfig):
        config = load_config(cls, overrides=[f"seed={COMFY}"])
        assert config.seed == COMFY
        for wrong in (-1, 2**64, 0.5):
            with pytest.raises(InputError, match="seed"):
                load_config(cls, overrides=[f"seed={wrong}"])
    (tmp_path / "jobs.jsonl").write_text(json.dumps({"image": "a.png", "motion": "b.mp4", "seed": 2**64 - 1}))
    assert read_jobs(tmp_path / "jobs.jsonl", tmp_path / "out")[0].seed == 2**64 - 1


@pytest.mark.parametrize("seed", [5, 2**32 - 1, COMFY, 2**64 - 1])
def test_what_is_drawn_is_that_of_the_folded_seed(seed):
    folded = np.uint32(seed if seed < 2**32 else np.random.SeedSequence(seed).generate_state(1)[0])
    key = jax.random.fold_in(jax.random.key(folded), 0)
    expected = jax.random.normal(key, (2, 2, 4))
    np.testing.assert_array_equal(draw_noise(seed, ONE, (2, 2, 4))[0], expected)
    np.testing.assert_array_equal(frame_noise(jnp.array([fold_seed(seed)], jnp.uint32), 1, 2, 2, 4)[0, 0], expected)
    drawn = next(iter(sample_keys(seed, ONE).values()))[0]
    assert drawn == jax.random.split(key, 5)[0]


def test_networks_are_initialised_from_them():
    config = ModelConfig.tiny()
    networks = [init_network("pose_net", config, seed) for seed in (COMFY, fold_seed(COMFY), 0)]
    kernels = [network.conv_layers[7].kernel[...] for network in networks]
    np.testing.assert_array_equal(kernels[0], kernels[1])
    assert not np.allclose(kernels[0], kernels[2])
