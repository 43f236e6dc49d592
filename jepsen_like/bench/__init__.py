"""How fast is it, and beside what? Plain processes on loopback, a load generator in processes of its own, figures for
both.

`wire` (one connection that keeps requests outstanding, HTTP/1.1 or gRPC), `load` (a generator process), `servers`
(Comitia and etcd as processes), `kv`, `failover`, `power_off`, `heal` and `catchup` (the measurements). No thresholds:
the only judgement is whether there was an election where none may be.
"""
