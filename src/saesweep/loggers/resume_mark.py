"""Up to which token one logger of one SAE has logged, on disk: after an interruption nothing is logged twice."""
import json
from pathlib import Path

from saesweep.runtime import atomic


class ResumeMark:
    def __init__(self, file: Path) -> None:
        self._file = file
        known = json.loads(file.read_text()) if file.is_file() else {}
        self.tokens: int = known.get("tokens", -1)
        self.version: str | None = known.get("version")  # what the logger calls this SAE's run, where it chooses that

    def move(self, tokens: int, version: str | None = None) -> None:
        self.tokens, self.version = tokens, version
        atomic.write(self._file, json.dumps({"tokens": tokens, "version": version}))
