"""A stand-in for `comitia agent` in tests of the harness: takes its arguments, serves just enough HTTP, elects s1.

It leads if it is the first server, and says so in /v1/agent/self and /v1/status/leader. `PUT /v1/exit?CODE` ends it
with that code, to play a crash. Not an agent: no Raft, no state. Runs as a program only.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


def option(name: str) -> str:
    """The value behind a flag."""
    return sys.argv[sys.argv.index(name) + 1]


class Handler(BaseHTTPRequestHandler):
    """Answers as agent NODE."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        node = option("-node")
        if self.path == "/v1/status/leader":
            self.reply("10.77.0.1:8300")
        elif self.path == "/v1/agent/self":
            role = "client" if node.startswith("c") else "Leader" if node == "s1" else "Follower"
            raft = {"state": role, "term": "1", "commit_index": "7", "applied_index": "7", "leader": "10.77.0.1:8300"}
            self.reply({"Config": {"NodeName": node}, "Stats": {"raft": raft}})
        elif self.path == "/whoami":
            namespace = os.environ.get("COMITIA_NAMESPACE")
            self.reply({"node": node, "uid": os.getuid(), "namespace": namespace, "from": self.client_address[0]})
        else:
            self.send_error(404)

    def do_PUT(self) -> None:
        size = int(self.headers.get("Content-Length") or 0)
        while size > 0:
            size -= len(self.rfile.read(min(size, 1 << 20)))
        if self.path.startswith("/v1/exit?"):
            os._exit(int(self.path.partition("?")[2]))
        self.reply(True)

    def reply(self, value: object) -> None:
        body = json.dumps(value).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        print(format % args, flush=True)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
    print("stub", sys.argv[1:], flush=True)
    ThreadingHTTPServer(("0.0.0.0", 8500), Handler).serve_forever()
