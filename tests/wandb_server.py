"""A stand-in for W&B's server on this machine: it accepts every request, and records histories and workspaces."""

import gzip
import json
import threading
from http.server import BaseHTTPRequestHandler

from local_server import LocalServer

KEY = "0123456789abcdef" * 2 + "76543210"
PROJECT = "UHJvamVjdEludGVybmFsSWQ6MQ=="  # ProjectInternalId:1
BUCKET = {"id": "Qg==", "description": "", "config": "{}", "sweepName": None, "historyLineCount": 0,
          "project": {"id": "UA==", "name": "saesweep", "entity": {"id": "RQ==", "name": "me"}}}
VIEWER = {"id": "VQ==", "entity": "me", "username": "me", "email": "", "flags": "{}", "teams": {"edges": []}}

RUN = {"id": "Ug==", "projectId": 1, "tags": [], "displayName": "", "sweepName": None, "state": "finished", "group": "",
       "jobType": "sae", "commit": None, "readOnly": False, "createdAt": "2026-01-01T00:00:00Z", "heartbeatAt": None,
       "description": "", "notes": "", "systemMetrics": "{}", "summaryMetrics": "{}", "historyLineCount": 0,
       "user": {"name": "me", "username": "me"}, "historyKeys": None}


class Server(LocalServer):
    def __init__(self):
        super().__init__(Handler)
        self.history: dict[str, list[dict]] = {}  # of each run, by id
        self.views: list[dict] = []  # of workspaces
        self.archs: dict[str, str] = {}  # of each run of an SAE, by id
        self.lock = threading.Lock()

    def answer(self, query, variables):
        if "upsertBucket" in query:
            names = {"name": variables.get("name"), "displayName": variables.get("displayName")}
            return {"upsertBucket": {"bucket": BUCKET | names, "inserted": True}}
        if "createRunFiles" in query:
            files = [{"name": name, "uploadUrl": f"{self.url}/upload/{name}"} for name in variables["files"]]
            return {"createRunFiles": {"runID": "Qg==", "uploadHeaders": [], "files": files}}
        if "createArtifact(" in query:
            return {"createArtifact": {"artifact": {"id": "QQ==", "state": "COMMITTED", "artifactSequence": {"id": "cw=="}}}}
        if "upsertView" in query:
            self.views.append(variables)
            return {"upsertView": {"view": {"id": "Vg==", "name": variables["name"]}, "inserted": True}}
        if "query Runs(" in query:
            nodes = [{"node": RUN | {"name": name, "config": json.dumps({"arch": {"value": arch}})}, "cursor": name}
                     for name, arch in self.archs.items()]
            runs = {"edges": nodes, "pageInfo": {"endCursor": None, "hasNextPage": False}}
            return {"project": {"internalId": PROJECT, "runCount": len(nodes), "readOnly": False, "runs": runs}}
        if "viewer" in query.lower():
            return {"viewer": VIEWER}
        return {"project": None}


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def body(self):
        content = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        return gzip.decompress(content) if self.headers.get("Content-Encoding") == "gzip" else content

    def reply(self, content):
        encoded = json.dumps(content).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(encoded)))
        self.end_headers()
        self.wfile.write(encoded)

    def do_GET(self):
        self.reply({})

    def do_PUT(self):
        self.body()
        self.reply({})

    def do_POST(self):
        content = self.body()
        if self.path.endswith("/graphql"):
            request = json.loads(content)
            self.reply({"data": self.server.answer(request["query"], request.get("variables") or {})})
        elif self.path.endswith("/file_stream"):
            history = json.loads(content).get("files", {}).get("wandb-history.jsonl", {})
            with self.server.lock:
                rows = self.server.history.setdefault(self.path.split("/")[-2], [])
                rows.extend(json.loads(line) for line in history.get("content", []))
            self.reply({"exitcode": None, "limits": {}})
        else:
            self.reply({})
