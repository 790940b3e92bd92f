"""Made-up latents for the tests of the judge: latent i fires on one word of its own, and on nothing else."""
import json
import random
from pathlib import Path

import numpy as np
from omegaconf import OmegaConf

from saesweep.study.judge.judge import judge
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


def some(count=6, path="a", control=None):
    return [latent(number, path, control) for number in range(count)]


def judged(server, folder, examples, **more):
    """The scores by the model at the server, with the files of the jobs and the cache in the folder."""
    node = settings(**{"model": "standin", "base_url": server.url, "retries": 2, "give_up_after": 1000} | more)
    jobs = {one.path: folder / one.path for one in examples}
    for job in jobs.values():
        job.mkdir(exist_ok=True)
    return judge(examples, node, jobs=jobs, cache=folder / "cache/responses.sqlite", seed=0)


def records(folder, name):
    return [json.loads(line) for line in (folder / "a/study" / name).read_text().splitlines()]
