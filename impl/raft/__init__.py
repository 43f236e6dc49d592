"""The Raft core of an agent: sans-I/O. Inputs in, `Ready` out."""
