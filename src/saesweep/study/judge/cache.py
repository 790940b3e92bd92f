"""Responses by request, in one file for all studies: a request that was answered once is not asked again.

The key is the sha256 of the model, the parameters and the messages. A response is written before it is used, so that a run that
is killed loses the requests under way and no others. Failures are not kept: the next run asks again.
"""
from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from saesweep.study.judge.messages import Answer, Request

TABLE = "CREATE TABLE IF NOT EXISTS responses (key TEXT PRIMARY KEY, response TEXT NOT NULL)"
PATIENCE = 60  # seconds to wait while another process writes


def request_key(parameters: Mapping[str, Any], request: Request) -> str:
    return hashlib.sha256(json.dumps([parameters, request.messages], sort_keys=True).encode()).hexdigest()


class ResponseCache:
    def __init__(self, file: Path) -> None:
        file.parent.mkdir(parents=True, exist_ok=True)
        self._db = sqlite3.connect(file, timeout=PATIENCE, isolation_level=None)
        self._db.execute("PRAGMA journal_mode=WAL")
        self._db.execute("PRAGMA synchronous=NORMAL")  # safe from a kill of the process; a power cut may cost the last ones
        self._db.execute(TABLE)

    def get(self, key: str) -> Answer | None:
        row = self._db.execute("SELECT response FROM responses WHERE key = ?", (key,)).fetchone()
        return Answer(**json.loads(row[0])) if row else None

    def put(self, key: str, answer: Answer) -> None:
        self._db.execute("INSERT OR REPLACE INTO responses VALUES (?, ?)", (key, json.dumps(answer._asdict())))

    def close(self) -> None:
        self._db.close()
