"""A document: a text, or one whose token ids are known too."""
import hashlib


class Tokenised(str):
    """A document whose token ids are known, those that are only read as -2 - id; `part`: of a mixture, its number."""

    ids: list[int]
    part: int | None

    @classmethod
    def of(cls, text: str, ids: list[int], part: int | None = None) -> "Tokenised":
        found = cls(text)
        found.ids, found.part = ids, part
        return found


def digest(document: str) -> bytes:
    """By which equal documents are found."""
    return hashlib.sha256(document.encode("utf-8", "surrogatepass")).digest()
