"""A real gRPC server with the health protocol, as a process of its own. Arguments, for TLS: the chain and the key.

Its services: "" and "good" are serving, "bad" is not. It prints its port and ends at the end of its standard input.
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc

server = grpc.server(ThreadPoolExecutor(max_workers=2))
servicer = health.HealthServicer()
servicer.set("good", health_pb2.HealthCheckResponse.SERVING)
servicer.set("bad", health_pb2.HealthCheckResponse.NOT_SERVING)
health_pb2_grpc.add_HealthServicer_to_server(servicer, server)
if len(sys.argv) > 1:
    certificate, key = (Path(name).read_bytes() for name in sys.argv[1:3])
    port = server.add_secure_port("127.0.0.1:0", grpc.ssl_server_credentials([(key, certificate)]))
else:
    port = server.add_insecure_port("127.0.0.1:0")
server.start()
print(port, flush=True)
sys.stdin.read()
server.stop(None).wait()
