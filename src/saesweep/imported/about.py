"""What the files of an SAE say about it, and why some cannot be measured."""
from typing import NamedTuple

TRANSCODER = "it is a transcoder, which reads one tensor and writes another; give an SAE, which does both with one"
PER_TOKEN = "each token is normalised by itself, which no weights can do; give an SAE with one factor for all tokens"


class About(NamedTuple):
    format: str  # whose format it is, in words
    curve: str  # the curve that it is a point of, unless it is given another name
    model: str | None  # the language model, as its files call it; None where they do not say
    hook: str | None  # where it reads: a name of TransformerLens, or the path of a module
    tokens: int | None  # of its training
