"""How a mistake gets into an agent: one named function of the product is replaced before the agent starts.

If that name is gone the agent does not start: a mutant that no longer changes anything would make a blind check look
sharp. The product has no flag for any of this.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping
from typing import Any

Function = Callable[..., Any]
Mutants = Mapping[str, Callable[[], None]]
"""By name: what makes the mistake."""


def replace(target: str, make: Callable[[Any], Any]) -> None:
    """Replace `package.module:name`, or `package.module:Class.name`, by `make(original)`.

    Raises AttributeError if the product has no such name.
    """
    module_name, _, path = target.partition(":")
    *owners, name = path.split(".")
    owner: Any = importlib.import_module(module_name)
    for each in owners:
        owner = getattr(owner, each)
    setattr(owner, name, make(getattr(owner, name)))


def by_name(*mutate: Function) -> Mutants:
    """What the command line calls them: the functions' names, with hyphens."""
    return {each.__name__.replace("_", "-"): each for each in mutate}
