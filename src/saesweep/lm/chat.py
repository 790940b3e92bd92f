"""The chat template of a tokenizer: the tokens of a conversation, and which of them the assistant generated."""
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from saesweep.errors import UsageError

MARKERS = re.compile(r"\{%-?\s*generation\b")  # around what the assistant generates: transformers' own words in a template
Render = Callable[[Sequence[Mapping[str, Any]]], tuple[list[int], list[int]]]  # ids, and for each 1 where it was generated


def chat_of(model: str, tokenizer: Any, file: str | None) -> tuple[Render, str]:
    """From messages to tokens, and the template: that of the tokenizer, or a file's. Raises UsageError where it is missing, or
    does not say what the assistant generates."""
    template, where = (tokenizer.chat_template, f"the chat template of {model}") if file is None else _read(file)
    fix = "give a file: text.template=template.jinja"
    if not isinstance(template, str):
        raise UsageError(f"text.template=null: the tokenizer of {model} has no chat template; {fix}")
    if not MARKERS.search(template):
        raise UsageError(f"text.template={file or 'null'}: {where} does not say which tokens the assistant generates: it lacks "
                         f"{{% generation %}} and {{% endgeneration %}} around them; add these to a copy, and {fix}")

    def render(messages: Sequence[Mapping[str, Any]]) -> tuple[list[int], list[int]]:
        found = tokenizer.apply_chat_template(
            list(messages), chat_template=template, tokenize=True, return_dict=True, return_assistant_tokens_mask=True)
        return list(found["input_ids"]), list(found["assistant_masks"])

    return render, template


def _read(file: str) -> tuple[str, str]:
    try:
        return Path(file).read_text(), file
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"text.template={file}: cannot be read ({error}); give a file of text, or null") from error
