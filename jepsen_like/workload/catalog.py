"""The workloads by name."""

from __future__ import annotations

from jepsen_like.workload.base import Workload
from jepsen_like.workload.lock import LOCK
from jepsen_like.workload.register import REGISTER
from jepsen_like.workload.registry import REGISTRY
from jepsen_like.workload.sets import SET

WORKLOADS: dict[str, Workload] = {workload.name: workload for workload in (REGISTER, SET, LOCK, REGISTRY)}
