"""In a process each text of YAML is parsed once, the package's files that the same choices of groups name are listed once,
and the same texts are merged once into a config by Hydra, which does all of it for every config that it composes.

What was made is kept pickled: a copy by pickle takes a fifth of the time of a deepcopy. The metadata of each node, which are
most of the time of the deepcopies that Hydra takes, are copied by their names, and a text with interpolations is parsed once.
"""
import functools
import os
import pickle
from collections import defaultdict
from copy import deepcopy
from pathlib import Path

import hydra
from hydra._internal import config_loader_impl
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.defaults_list import Overrides
from omegaconf import OmegaConf, _utils, base
from omegaconf.base import Metadata

LOAD, KNOWN, LISTED, MERGED = OmegaConf.load, {}, {}, {}
LIST, MERGE = config_loader_impl.create_defaults_list, ConfigLoaderImpl._compose_config_from_defaults_list
ROOT = Path(__file__).parents[1]
CONFIGS = ROOT / "conf", Path(hydra.__file__).parent / "conf"


def load(file):
    """OmegaConf.load; a text that it refuses is not kept."""
    if not hasattr(file, "read"):
        with open(os.path.abspath(file), encoding="utf-8") as opened:
            return load(opened)
    start, text = file.tell(), file.read()
    if text not in KNOWN:
        file.seek(start)
        KNOWN[text] = pickle.dumps(LOAD(file))
    return pickle.loads(KNOWN[text])


@functools.wraps(LIST)
def listed(repo, config_name, overrides_list, **how):
    """Values are no part of a list; files of a test's own may change."""
    sources = [(type(source).__name__, source.path) for source in repo.get_sources()]
    if any(Path(path).is_absolute() and not Path(path).is_relative_to(ROOT) for _, path in sources):
        return LIST(repo, config_name, overrides_list, **how)
    values = Overrides(repo, overrides_list).config_overrides
    choices = [one for one in overrides_list if one not in values]
    content = str((sources, config_name, [one.input_line for one in choices], how))
    if content not in LISTED:
        LISTED[content] = pickle.dumps(LIST(repo, config_name, choices, **how))
    found = pickle.loads(LISTED[content])
    found.config_overrides = found.overrides.config_overrides = values
    return found


@functools.wraps(MERGE)
def merged(loader, defaults, repo):
    content = tuple((repr(one), pickle.dumps(repo.load_config(one.config_path))) for one in defaults)
    if content not in MERGED:
        MERGED[content] = pickle.dumps(MERGE(loader, defaults, repo))
    return pickle.loads(MERGED[content])


def copied(metadata, memo):
    """What it holds but for these two is never changed: types, and the key of its node."""
    copy = object.__new__(type(metadata))
    copy.__dict__ = metadata.__dict__ | {
        "flags": metadata.flags and dict(metadata.flags),
        "resolver_cache": deepcopy(metadata.resolver_cache, memo) if metadata.resolver_cache else defaultdict(dict),
    }
    return copy


def install() -> None:
    Metadata.__deepcopy__ = copied
    base.parse = _utils.parse = functools.cache(base.parse)  # its trees are only read
    OmegaConf.load = staticmethod(load)
    config_loader_impl.create_defaults_list = listed
    ConfigLoaderImpl._compose_config_from_defaults_list = merged


def load_all() -> None:
    """The package's files, and Hydra's own."""
    for folder in CONFIGS:
        for file in folder.rglob("*.yaml"):
            load(file)
