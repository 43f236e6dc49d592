"""How long the agent takes for each endpoint and method: Consul's `api.http`.

Paths are those of the table of endpoints, with `_` for what follows, so that there are only so many of them; what no
endpoint answers is not measured. Source: Consul, "Telemetry".
"""

from __future__ import annotations

from typing import Final

from impl.http import routes
from impl.http.request import HttpError, decode_path
from impl.runtime.interfaces import MILLISECONDS, Clock
from impl.telemetry.instruments import Sample, Telemetry

_KV: Final = b"/v1/kv/"
_HELP: Final = "Answering HTTP requests, in ms; blocking queries with their waiting."


class HttpMeasures:
    """What one agent's HTTP API measures."""

    def __init__(self, telemetry: Telemetry, clock: Clock) -> None:
        self.now_ns = clock.monotonic_ns
        self._telemetry = telemetry
        self._kv: dict[str, Sample] = {method: self._sample(method, "/v1/kv/") for method in ("GET", "PUT", "DELETE")}
        self._plain = {b"GET": self._kv["GET"].observe, b"PUT": self._kv["PUT"].observe}
        self._others: dict[tuple[str, str], Sample] = {}

    def took(self, method: bytes, started_ns: int) -> None:
        """A GET or PUT of a key was answered in the short way."""
        self._plain[method]((self.now_ns() - started_ns) / MILLISECONDS)

    def answered(self, method: str, raw_path: bytes, started_ns: int) -> None:
        """A request was answered."""
        sample = self._kv.get(method) if raw_path.startswith(_KV) else self._other(method, raw_path)
        if sample is not None:
            sample.observe((self.now_ns() - started_ns) / MILLISECONDS)

    def _other(self, method: str, raw_path: bytes) -> Sample | None:
        try:
            path = decode_path(raw_path)
        except HttpError:
            return None
        endpoint = routes.found(path)
        if endpoint is None or method not in endpoint[0]:
            return None
        key = method, path[: len(path) - len(endpoint[1])]
        sample = self._others.get(key)
        if sample is None:
            sample = self._others[key] = self._sample(*key)
        return sample

    def _sample(self, method: str, endpoint: str) -> Sample:
        shown = endpoint[1:].replace("/", ".") + ("_" if endpoint.endswith("/") else "")
        return self._telemetry.sample("api.http", _HELP, (("method", method), ("path", shown)))
