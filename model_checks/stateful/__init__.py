"""The real cores and the real durable log under any schedule: delivery, loss, duplication, time, crashes that lose
writes.

`world` is the system under test, in one thread and without time; `observer` judges it by Raft's properties; `replay`
by the spec, step by step; `machine` lets Hypothesis choose the schedule; `script` reads one from a text.
ARCHITECTURE.md, section 1.
"""
