"""Hydra's errors in one line that says what to write instead. A mistyped key is answered without importing torch or pandas."""
import difflib
import os
import re
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from hydra import errors
from hydra._internal import utils
from hydra._internal.config_repository import IConfigRepository
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.types import Override
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException
from yaml import MarkedYAMLError, YAMLError

from saesweep.errors import TrainingFailed
from saesweep.runtime import program
from saesweep.sweep import rollback
from saesweep.sweep.per_arch import misspelt

OF_HYDRA = (errors.ConfigCompositionException, errors.OverrideParseException, errors.InstantiationException)
REFUSED = (*OF_HYDRA, OmegaConfBaseException, YAMLError)
NO_NAME, NO_LOGGER = "Config group override must be a string", "logger=[] is no logger at all"
NOTHING_WITH_NONE = {"study": "rules", "explainer": "openai or explainer=local"}  # what to choose before a key is there
GROUPS = ("sweeps", "hydra/launcher", "hydra/sweeper", "hydra/job_logging", "hydra/hydra_logging")


@contextmanager
def one_line_errors() -> Iterator[None]:
    """Around hydra.main: exit with code 1 and one line; HYDRA_FULL_ERROR=1 shows the traceback."""
    _refuse_options(sys.argv[1:])
    report = utils.run_and_report  # where Hydra prints its errors
    utils.run_and_report = lambda work: report(lambda: _run_in_one_line(work))
    try:
        yield
    finally:
        utils.run_and_report = report
        rollback.roll_back()


def _run_in_one_line(work: Callable[[], Any]) -> Any:
    try:
        return work()
    except Exception as error:
        if isinstance(error, TrainingFailed) and os.environ.get("HYDRA_FULL_ERROR") != "1":
            sys.exit(str(error))
        refused = isinstance(error, REFUSED) or type(error) is errors.HydraException or str(error).startswith(NO_NAME)
        in_a_job = any(frame.f_code.co_name == "return_value" for frame, _ in traceback.walk_tb(error.__traceback__))
        if os.environ.get("HYDRA_FULL_ERROR") == "1" or in_a_job or not refused:
            raise
        sys.exit(message(error))


def _refuse_options(words: list[str]) -> None:
    unknown = utils.get_args_parser().parse_known_args(words)[1]
    if unknown and unknown[0].startswith("-"):
        word = unknown[0].lstrip("-")
        sys.exit(f"{unknown[0]}: there is no such option; a setting has no dashes: {word if '=' in word else f'{word}=...'}")
    if unknown:
        sys.exit(f"{unknown[0]}: comes after an option that follows settings; write options such as -m first")


def message(error: Exception) -> str:
    """The key or word, and the fix, in one line."""
    if isinstance(error, errors.OverrideParseException):
        return _unreadable(error)
    text = str(error)
    if isinstance(error, MarkedYAMLError) and (mark := error.problem_mark or error.context_mark):
        return f"{mark.name}: is not readable YAML, line {mark.line + 1}: {error.problem or error.context}"
    if isinstance(error, MissingMandatoryValue):
        return f"{error.full_key}: is missing; write {error.full_key}=..."
    if text.startswith(NO_NAME):
        override = _local(error, "override", Override)
        fix = f"; {NO_LOGGER}" if override.key_or_group == "logger" else ""
        return f"{override.input_line}: must be the name of a file in conf/{override.key_or_group}, without .yaml{fix}"
    if text.startswith("Could not delete 'logger'"):
        return f"~logger: a list of choices cannot be deleted; {NO_LOGGER}"
    if isinstance(error, errors.MissingConfigException) and (found := re.search(r"Could not (?:find|load) '(.*)/(.*)'", text)):
        return _no_choice(found[1], found[2], _local(error, "repo", IConfigRepository))
    if found := re.match(r"Ambiguous value for argument '(.*)'", text):
        key, _, value = found[1].partition("=")
        if is_of_a_sweep(key):
            return not_swept(found[1])
        return f"{found[1]}: {_with_m()} {found[1].replace(' ', '')}; or quote a text twice: '{key}=\"{value}\"'"
    if found := re.match(r"Sweep parameters '(.*)' requires", text):
        return f"{found[1]}: {_with_m()} '{found[1]}'"
    if found := re.match(r"Could not (?:override|delete from config\.) '(\S+)'(?: does not exist)?\.", text):
        return _no_key(found[1], _local(error, "cfg", DictConfig))
    return _shortened(error)


def is_of_a_sweep(key: str) -> bool:
    """Whether all SAEs of a sweep have the same value of the key."""
    return key.split(".")[0] in ("study", "explainer")


def not_swept(word: str) -> str:
    return (f"{word}: a study is of a whole sweep, so its settings are not swept over; write one value, and make other studies "
            f"with {program.called('study')} afterwards")


def _with_m() -> str:
    return f"several values are a sweep: add -m, as in {program.called('train')} -m"


def _unreadable(error: errors.OverrideParseException) -> str:
    word = error.override
    key, equals, value = word.partition("=")
    if not equals or value.endswith(","):
        return f"{word}: is not key=value; several values have no blanks (sparsity=16,32), and a text with blanks is quoted"
    lines = [line for line in error.message.splitlines() if not line.startswith("Error parsing")]
    why = lines[0].replace(f"LexerNoViableAltException: {word}", "a sign that ends a plain text")
    return f"{word}: cannot be read ({why}); quote a text twice: '{key}=\"{value}\"'"


def _no_choice(group: str, choice: str, configs: IConfigRepository) -> str:
    known = sorted(configs.get_group_options(group))
    close = difflib.get_close_matches(choice, known, n=1)
    fix = f"did you mean {close[0]}? There are" if close else "there are"
    return f"{group}={choice}: {group} has no such choice; {fix} {', '.join(known)}"


def _no_key(key: str, config: DictConfig | None) -> str:
    given = {word.lstrip("+~").split("=")[0]: word for word in sys.argv[1:]}
    of_one = {f"arch.{at.partition('.')[2]}": word for at, word in given.items()}  # per_arch.py
    typed = given.get(key) or of_one.get(key, key)
    if "@" in key:
        return f"{typed}: there is no key {key}; a group has one place here: write {key.split('@')[0]}=..."
    group, parent, last = key.split(".")[0], key.rpartition(".")[0], key.rpartition(".")[2]
    if config is not None and OmegaConf.select(config, f"{group}.name") == "none" and group in NOTHING_WITH_NONE:
        return f"{typed}: {group}=none has no keys; write {group}={NOTHING_WITH_NONE[group]} too"
    archs = GlobalHydra.instance().config_loader().get_group_options("arch") if GlobalHydra.instance().is_initialized() else []
    if "." in key and (arch := misspelt(group, archs)):
        return f"{typed}: there is no architecture {group}; did you mean {arch}.{key.partition('.')[2]}?"
    if key.startswith("model.load."):
        return f"{typed}: the file of conf/model has no such key; add it with a plus: +{typed}"
    known = list(_dotted(config))
    siblings = [name for name in [*known, *GROUPS] if name.rpartition(".")[0] == parent]
    close = [f"{parent}.{name}".lstrip(".") for name in difflib.get_close_matches(last, [s.split(".")[-1] for s in siblings])]
    close += [name for name in known if name.split(".")[-1] == last]
    close += difflib.get_close_matches(key, [name for name in known if not key.startswith(f"{name}.")], cutoff=0.75)
    fix = f"did you mean {close[0]}?" if close else f"known: {', '.join(siblings)}" if siblings else "see --cfg job"
    return f"{typed}: there is no key {key}; {fix}"


def _local(error: BaseException, name: str, kind: type) -> Any:
    """The value of this local variable in Hydra's innermost frame that has it, else None: the exception does not hold it."""
    found = [frame.f_locals.get(name) for frame, _ in traceback.walk_tb(error.__traceback__)]
    return next((value for value in reversed(found) if isinstance(value, kind)), None)


def _dotted(node: Any, path: str = "") -> Iterator[str]:
    """All dotted keys below the node; Hydra's own last."""
    keys = OmegaConf.to_container(node, resolve=False) if isinstance(node, DictConfig) else node
    if isinstance(keys, dict):
        for key in sorted(keys, key=lambda key: key == "hydra"):
            yield f"{path}{key}"
            yield from _dotted(keys[key], f"{path}{key}.")


def _shortened(error: BaseException) -> str:
    """The messages of the error and of its cause on one line."""
    texts = [str(one) for one in (error, error.__cause__) if one is not None and str(one)]
    lines = [line.strip() for text in texts for line in re.split(r"\n *full_key", text)[0].splitlines()]
    return " ".join(dict.fromkeys(filter(None, lines)))
