"""A stand-in for the Hugging Face hub on this machine: models, of one commit each, are made, written and read."""
import base64
import json
from http.server import BaseHTTPRequestHandler
from urllib.parse import unquote, urlsplit

from local_server import LocalServer

COMMIT = "0123456789abcdef0123456789abcdef01234567"


class Server(LocalServer):
    def __init__(self):
        super().__init__(Handler)
        self.files: dict[str, dict[str, bytes]] = {}  # of each repository, by path
        self.private: dict[str, bool] = {}
        self.gated: set[str] = set()
        self.downloaded: list[str] = []  # paths
        self.tokens: set[str | None] = set()  # that came with what was written


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *_):
        pass

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        parts = unquote(urlsplit(self.path).path).strip("/").split("/")
        if parts == [""]:
            return self.reply({})
        repository = "/".join(parts[2:4] if parts[0] == "api" else parts[:2])
        if repository not in self.server.files:
            return self.reply({"error": "Repository not found"}, 404, {"X-Error-Code": "RepoNotFound"})
        if repository in self.server.gated:
            return self.reply({"error": f"Access to model {repository} is restricted"}, 403, {"X-Error-Code": "GatedRepo"})
        files = self.server.files[repository]
        if parts[0] != "api":
            return self.content(files, "/".join(parts[4:]))
        if parts[4:5] == ["tree"]:
            return self.reply([{"type": "file", "path": path, "size": len(one), "oid": COMMIT} for path, one in files.items()])
        siblings = [{"rfilename": path, "size": len(one)} for path, one in files.items()]
        return self.reply({"id": repository, "sha": COMMIT, "siblings": siblings, "private": False, "tags": []})

    def content(self, files, path):
        if path not in files:
            return self.reply({}, 404, {"X-Error-Code": "EntryNotFound"})
        if self.command == "GET":
            self.server.downloaded.append(path)
        self.reply(files[path], 200, {"ETag": f'"{path}"', "X-Repo-Commit": COMMIT})

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/api/validate-yaml":
            return self.reply({"errors": [], "warnings": []})
        self.server.tokens.add(self.headers["Authorization"])
        if self.path == "/api/repos/create":
            return self.made(json.loads(body))
        repository = "/".join(self.path.split("/")[3:5])
        if "/preupload/" in self.path:
            return self.reply({"files": [{"path": one["path"], "uploadMode": "regular", "shouldIgnore": False}
                                         for one in json.loads(body)["files"]]})
        lines = [json.loads(line)["value"] for line in body.splitlines() if json.loads(line)["key"] == "file"]
        self.server.files[repository] |= {line["path"]: base64.b64decode(line["content"]) for line in lines}
        self.reply({"commitOid": COMMIT, "commitUrl": f"{self.server.url}/{repository}/commit/{COMMIT}", "success": True})

    def made(self, asked):
        repository = f"{asked.get('organization') or 'me'}/{asked['name']}"
        if repository.startswith("others/"):
            return self.reply({"error": "You don't have the rights to create a model there"}, 403)
        new = repository not in self.server.files
        if new:
            self.server.files[repository], self.server.private[repository] = {}, asked.get("visibility") == "private"
        self.reply({"url": f"{self.server.url}/{repository}", "name": repository}, 200 if new else 409)

    def reply(self, content, status=200, headers=()):
        body = content if isinstance(content, bytes) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in dict(headers).items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)
