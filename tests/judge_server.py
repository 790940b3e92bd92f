"""A stand-in for a server with OpenAI's chat completions on this machine, which can fail in every way that one does.

It understands the prompts of saesweep: to an explanation prompt it names the marked token ("the token X"), and it answers the
tasks by whether X is there. `faults` are what befalls the next requests, one each: see `_fault`.
"""
from __future__ import annotations

import json
import math
import re
import threading
import time
from collections import Counter
from http.server import BaseHTTPRequestHandler

from local_server import LocalServer

from saesweep.study.judge.messages import Answer, Failure

EXCERPT = re.compile(r"^=== (?:excerpt|tokens)\b.*? ([0-9a-f]{8})\n(.*?)\n=== end \1$", re.DOTALL | re.MULTILINE)
DESCRIPTION = re.compile(r"=== description ([0-9a-f]{8})\n(.*?)\n=== end \1", re.DOTALL)


class Server(LocalServer):
    def __init__(self, knows=True, logprobs=True, refuses=(), delay=0.0, explain=None):
        super().__init__(Handler)
        self.knows = knows  # else its explanations name a token that never occurs
        self.logprobs, self.refuses, self.delay, self.explain = logprobs, refuses, delay, explain
        self.late = 0.8  # seconds
        self.faults: list[str] = []
        self.asked: Counter[str] = Counter()  # requests by their messages
        self.bodies: list[dict] = []
        self.headers: list[dict] = []
        self.at_a_time, self.most_at_a_time, self.lock = 0, 0, threading.Lock()

    @property
    def url(self):
        return f"{super().url}/v1"

    def handle_error(self, request, client_address):
        """The client has left a late answer: no traceback."""

    def take(self, body, **headers):
        """Note a request; what befalls it."""
        with self.lock:
            self.asked[json.dumps(body["messages"])] += 1
            self.bodies.append(body)
            self.headers.append(headers)
            return self.faults.pop(0) if self.faults else None

    def answer(self, body):
        content = body["messages"][1]["content"]
        excerpts = [text for _, text in EXCERPT.findall(content)]
        described = DESCRIPTION.search(content)
        token = described[2].removeprefix("the token ").strip() if described else None
        if "Description:" in content:
            return self.explain or (self._marked(content) if self.knows else "the token zebra")
        if "Strengths:" in content:
            lines = [line.split(": ", 1) for line in excerpts[0].splitlines()]
            return "\n".join(f"{n}: {9 if json.loads(text).strip() == token else 0}" for n, text in lines)
        if "does not belong" in content:
            return str(self._intruder(excerpts))
        if "Do the marked tokens fit" in content:
            opening, closing = re.search(r"between (\S+) and (\S+)\.", content).groups()
            marked = re.findall(f"{re.escape(opening)}(.*?){re.escape(closing)}", excerpts[0], re.DOTALL)
            return "yes" if token and all(one.strip() == token for one in marked) else "no"
        return "yes" if token and token in excerpts[0].split() else "no"

    @staticmethod
    def _marked(content):
        opening, closing = re.search(r"between (\S+) and (\S+)\.", content).groups()
        marked = re.findall(f"{re.escape(opening)}(.*?){re.escape(closing)}", content.split("\n\n", 1)[1], re.DOTALL)
        return f"the token {Counter(one.strip() for one in marked).most_common(1)[0][0]}" if marked else "nothing"

    @staticmethod
    def _intruder(excerpts):
        """The one without the word that the others share."""
        words = [set(text.split()) for text in excerpts]
        for number in range(len(words)):
            others = set.intersection(*(words[:number] + words[number + 1:]))
            if others - words[number]:
                return number + 1
        return 1


def completion(text, logprobs, reason="stop"):
    top = [{"token": word, "logprob": math.log(p), "bytes": None} for word, p in logprobs.items()]
    place = {"token": text, "logprob": -0.01, "bytes": None, "top_logprobs": top}
    choice = {"index": 0, "finish_reason": reason, "message": {"role": "assistant", "content": text},
              "logprobs": {"content": [place]} if logprobs else None}
    return {"id": "1", "object": "chat.completion", "created": 0, "model": "standin", "choices": [choice],
            "usage": {"prompt_tokens": 1, "completion_tokens": 1, "total_tokens": 2}}


class Direct:
    """The model behind a server, without the way there; every fault is a failure, but for `unread`."""

    def __init__(self, server, name):
        self.server, self.name = server, name

    def parameters(self, request):
        return {"model": self.name}

    def complete(self, requests):
        for number, request in enumerate(requests):
            body = {"messages": request.messages, "model": self.name}
            fault = self.server.take(body)
            text = "I would rather not" if fault == "unread" else self.server.answer(body)
            yield number, Failure(fault) if fault not in ("", "unread", None) else Answer(text)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_POST(self):
        server, body = self.server, json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        fault = server.take(body, **{name.lower(): value for name, value in self.headers.items()})
        with server.lock:
            server.at_a_time += 1
            server.most_at_a_time = max(server.most_at_a_time, server.at_a_time)
        try:
            self._reply(body, fault)
        finally:
            with server.lock:
                server.at_a_time -= 1

    def _reply(self, body, fault):
        time.sleep(self.server.delay)
        for key in self.server.refuses:
            if key in body:
                return self._send(400, {"error": {"message": f"Unsupported parameter: '{key}'"}})
        if fault:
            return self._fault(fault, body)
        text = self.server.answer(body)
        sure = {"yes": ("yes", "no"), "no": ("no", "yes")}.get(text)
        given = self.server.logprobs and body.get("logprobs") and sure
        return self._send(200, completion(text, {sure[0]: 0.9, sure[1].capitalize(): 0.1} if given else {}))

    def _fault(self, fault, body):
        key = self.headers.get("Authorization", "")
        if fault.isdigit():  # an error, whose text repeats the key
            retry = {"Retry-After": "0.3"} if fault == "429" else {}
            return self._send(int(fault), {"error": {"message": f"refused {key}"}}, **retry)
        if fault == "late":
            time.sleep(self.server.late)
            return self._send(200, completion("yes", {}))
        if fault == "lost":  # in the middle of the answer
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", "1000")
            self.end_headers()
            self.wfile.write(b'{"id": "1", "choi')
            self.close_connection = True
            return None
        contents = {
            "no choices": completion("yes", {}) | {"choices": []}, "null choices": completion("yes", {}) | {"choices": None},
            "no text": completion(None, {}), "other object": {"detail": "fine"}, "list": [1, 2],
            "choice of text": completion("yes", {}) | {"choices": ["yes"]}, "unread": completion("I would rather not", {}),
            "cut": completion("I think that the answ", {}, "length"),
        }
        if fault in contents:
            return self._send(200, contents[fault])
        return self._send(200, {"broken": b'{"choices": [', "page": b"<html>busy</html>"}[fault],
                          **({"Content-Type": "text/html"} if fault == "page" else {}))

    def _send(self, status, content, **headers):
        encoded = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in ({"Content-Type": "application/json", "Content-Length": str(len(encoded))} | headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(encoded)
