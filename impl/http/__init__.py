"""Consul's HTTP API over an `Agent`: a raw ASGI application. It never sees a socket; the runtime serves it."""
