"""How fast is it, and beside what? Plain processes on loopback, a load generator in processes of its own, figures for
both.

`wire` (one connection that keeps requests outstanding, HTTP/1.1 or gRPC), `load` (a generator process), `servers`
(Comitia and etcd as processes), `kv` and `failover` (the measurements). Judges nothing: there are no thresholds here.
"""
