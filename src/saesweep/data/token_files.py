"""Documents with their token ids: a column of ids, or a column of messages in the language model's chat template.

    kind: tokens    each row a list of ids of the language model's tokenizer. BOS at its beginning is left out, as each block
                    begins with its own; elsewhere it stays and, as a special token, is not trained on.
    kind: chat      each row a list of {"role": .., "content": ..}. The template says which tokens the assistant generated;
                    only these are trained and measured on, the others are read.

Both are split as text is (text.py): tokens by what they decode to, a chat by what the user and the assistant say in it.
"""
import json
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from saesweep.data import text_files
from saesweep.data.documents import Tokenised
from saesweep.data.text_readers import values
from saesweep.errors import UsageError
from saesweep.lm.tokenizer import Tokenizer

log = logging.getLogger(__name__)
NOTE = "sae_lens.json"  # which SAELens writes beside a text that it has tokenised
SAID = ("user", "assistant")  # roles whose words tell conversations apart
Convert = Callable[[str, Any], Tokenised]  # where a row is, and its value


def documents(text: Mapping[str, Any], tokenizer: Tokenizer, cache: Path) -> tuple[Sequence[str], dict[str, Any]]:
    """The documents, and what is noted of them: the tokenizer that a dataset states, or the chat template."""
    paths = text_files.matched(text["glob"], (".jsonl", ".parquet"))
    if text["kind"] == "tokens":
        convert, about = _of_ids(text, tokenizer), {"tokenized_by": _stated(paths)}
    else:
        convert, about = _of_messages(text, tokenizer)

    def read(path: Path) -> Iterator[str | None]:
        return (None if value is None else convert(where, value) for where, value in values(path, text["field"]))

    return text_files.of_files(text, paths, read, cache, has_ids=True), about


def _stated(paths: Sequence[Path]) -> list[str]:
    """The tokenizers that notes beside the files name."""
    notes = sorted({path.parent / NOTE for path in paths if (path.parent / NOTE).is_file()})
    found = [str(json.loads(note.read_text()).get("tokenizer_name")) for note in notes]
    for note, name in zip(notes, found, strict=True):
        log.info("text.glob: %s says that the text was tokenised by %s", note, name)
    return found


def _of_ids(text: Mapping[str, Any], tokenizer: Tokenizer) -> Convert:
    key, decode, size = f"text.field={text['field']}", tokenizer.decode, tokenizer.vocab_size
    assert decode is not None, "every tokenizer that is loaded decodes"

    def convert(where: str, ids: Any) -> Tokenised:
        if not isinstance(ids, list) or not all(type(one) is int for one in ids):
            raise UsageError(f"{key}: {where}: holds a value of type {type(ids).__name__}, not a list of token ids; choose "
                             "another field, or text=files for text")
        if (beyond := next((one for one in ids if not 0 <= one < size), None)) is not None:
            raise UsageError(f"{key}: {where}: holds the id {beyond}, and the language model's tokenizer has {size:,} tokens: "
                             "the text was tokenised by another; choose its model, or text=files")
        ids = ids[1:] if ids[:1] == [tokenizer.bos] else ids
        return Tokenised.of(decode(ids), ids)

    return convert


def _of_messages(text: Mapping[str, Any], tokenizer: Tokenizer) -> tuple[Convert, dict[str, Any]]:
    if tokenizer.chat is None:
        raise UsageError(f"text={text['name']}: needs the chat template of a model of the hub, or of a folder; choose another "
                         "model, or text=files")
    render, template = tokenizer.chat(text["template"])

    def convert(where: str, messages: Any) -> Tokenised:
        wanted = isinstance(messages, list) and all(isinstance(one, Mapping) and isinstance(one.get("content"), str)
                                                    and isinstance(one.get("role"), str) for one in messages)
        if not wanted:
            raise UsageError(f"text.field={text['field']}: {where}: is no list of messages such as "
                             '{"role": "user", "content": "..."}; correct or remove the row')
        try:
            ids, generated = render(messages)
        except Exception as error:  # of the template
            raise UsageError(f"text.field={text['field']}: {where}: does not fit the chat template: {error}; correct or remove "
                             "the row") from error
        read = [one if counts else -2 - one for one, counts in zip(ids, generated, strict=True)]
        said = "\n".join(one["content"] for one in messages if one["role"] in SAID)
        return Tokenised.of(said, read[1:] if ids[:1] == [tokenizer.bos] else read)

    return convert, {"template": template}
