"""Made-up latents for the tests of the judge: latent i fires on one word of its own, and on nothing else."""
import random
from pathlib import Path

import numpy as np
from omegaconf import OmegaConf

from saesweep.study.judge.settings import check_explainer
from saesweep.study.judge.windows import LatentExamples, Window

CONF = Path(__file__).parents[1] / "conf/explainer"
WORDS = [f"f{number}" for number in range(2000)]
SIZE, CENTER = 32, 23


def window(word: str | None, value: float, draw: random.Random) -> Window:
    """Other words, with the word in their middle; None: without it."""
    tokens = draw.choices(WORDS, k=SIZE)
    values = np.zeros(SIZE)
    if word is not None:
        tokens[CENTER], values[CENTER] = f"w{word}", value
    return Window(tuple(f" {token}" for token in tokens), values)


def latent(number: int, path: str = "a", control: str | None = None, count: int = 10, **more) -> LatentExamples:
    draw = random.Random(f"{number}{path}{control}")
    word, values = chr(97 + number % 26) * (1 + number // 26), [(n + 1) / count for n in range(count)]
    explain = {"top": [window(word, 1.0, draw) for _ in values], "decile": [window(word, value, draw) for value in values],
               "same_token": []}
    test = {"decile": [window(word, value, draw) for value in values], "random": [window(None, 0, draw) for _ in values],
            "same_token": [window(None, 0, draw) for _ in values]}
    return LatentExamples(path, control, number, 1.0, explain, test)._replace(**more)


def settings(name: str = "openai", **more) -> dict:
    node = OmegaConf.to_container(OmegaConf.load(CONF / f"{name}.yaml")) | more
    check_explainer(node)
    return node
