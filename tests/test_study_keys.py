"""The hash keys by which positions and latents are sampled."""
import numpy as np

from saesweep.study.keys import keys


def test_keys_have_the_values_of_the_reference():
    pinned = {(0, 0, 0): 0x33FE8BD4F9C57863, (0, 1, 0): 0x45CEC29CD9A24E4B, (0, 0, 1): 0x906A2E0A4515E900,
              (7, 4095, 123456789): 0xE4D7F88D6F5AB5B5}
    for (seed, latent, position), expected in pinned.items():
        assert int(keys(seed, np.array([latent]), np.array([position]))[0]) == expected


def test_ten_positions_are_drawn_in_the_order_of_the_reference():
    assert np.argsort(keys(0, np.array([3]), np.arange(10))).tolist() == [4, 0, 1, 8, 5, 6, 3, 9, 2, 7]
