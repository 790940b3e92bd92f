"""The messages for Hydra's errors: one line with the override and what to write instead."""
import sys

import pytest
from hydra.errors import HydraException
from standin.cli import composed

from saesweep.sweep.hydra_errors import message


@pytest.mark.parametrize(
    "word, line",
    [
        ("sparsty=8", "sparsty=8: there is no key sparsty; did you mean sparsity?"),
        ("~sparsty", "~sparsty: there is no key sparsty; did you mean sparsity?"),
        ("arch.coeficient=1", "arch.coeficient=1: there is no key arch.coeficient; did you mean arch.coefficient?"),
        ("~arch.coeficient", "~arch.coeficient: there is no key arch.coeficient; did you mean arch.coefficient?"),
        ("arch.optimizer.rl=1", "arch.optimizer.rl=1: there is no key arch.optimizer.rl; did you mean arch.optimizer.lr?"),
        ("arch.sparsity=3", "arch.sparsity=3: there is no key arch.sparsity; did you mean sparsity?"),
        ("lr=3", "lr=3: there is no key lr; did you mean arch.optimizer.lr?"),
        ("acrh.coefficient=3", "acrh.coefficient=3: there is no key acrh.coefficient; did you mean arch.coefficient?"),
        ("arc=topk", "arc=topk: there is no key arc; did you mean arch?"),
        ("sweep=quickstart", "sweep=quickstart: there is no key sweep; did you mean sweeps?"),
        ("hydra/launchr=pool", "hydra/launchr=pool: there is no key hydra/launchr; did you mean hydra/launcher?"),
        ("hydra.sweep.dirr=x", "hydra.sweep.dirr=x: there is no key hydra.sweep.dirr; did you mean hydra.sweep.dir?"),
        ("model.load.device_map=cpu", "model.load.device_map=cpu: the file of conf/model has no such key; add it"),
        ("cache.zzz=x", "cache.zzz=x: there is no key cache.zzz; known: cache.name, cache.folder"),
        ("arch=jumprelou", "arch=jumprelou: arch has no such choice; did you mean jumprelu? There are batchtopk, "),
        ("arch=", "arch=: arch has no such choice; there are batchtopk, "),
        ("logger=[csv,wandbb]", "logger=wandbb: logger has no such choice; did you mean wandb? There are csv, "),
        ("logger=null", "logger=null: must be the name of a file in conf/logger, without .yaml; logger=[] is no logger at all"),
        ("text@y=files", "text@y=files: there is no key text@y; a group has one place here: write text=..."),
        ("arch=3", "arch=3: must be the name of a file in conf/arch, without .yaml"),
        ("~logger", "~logger: a list of choices cannot be deleted; logger=[] is no logger at all"),
        ("arch=topk,gated", "arch=topk,gated: several values are a sweep: add -m, as in python train.py -m arch=topk,gated;"),
        ("seed=range(3)", "seed=range(3): several values are a sweep: add -m, as in python train.py -m 'seed=range(3)'"),
        ("sparsity=16,", "sparsity=16,: is not key=value; several values have no blanks (sparsity=16,32)"),
        ("32", "32: is not key=value; several values have no blanks"),
        ("a=b=c", "a=b=c: cannot be read (mismatched input '=' expecting <EOF>); quote a text twice: 'a=\"b=c\"'"),
        ("cache.folder=~/x", "cache.folder=~/x: cannot be read (a sign that ends a plain text); quote a text twice: "),
        ("seed=choice()", "seed=choice(): cannot be read (ValueError while evaluating 'choice()': empty choice is not legal)"),
        ("hydra.mode=foo", "Error merging override hydra.mode=foo Invalid value 'foo', expected one of [RUN, MULTIRUN]"),
    ],
)
def test_an_override_that_hydra_rejects_is_named_with_a_suggestion_or_fix(word, line, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train.py", word])
    with pytest.raises((HydraException, ValueError)) as error:
        composed(word, always=())
    assert message(error.value).startswith(line) and "\n" not in message(error.value)
