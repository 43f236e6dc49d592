"""The Raft core of an agent: sans-I/O. Inputs in, `Ready` out.

`core.Core` is what a driver holds; `messages` what servers send each other; `ready` what the driver must do, and in
which order. Each action of the spec (ARCHITECTURE.md, section 3) is one function of the same name, in the module of its
theme (`server` lists them) or, for `persist` and `apply`, in `core`.
"""
