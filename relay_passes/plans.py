"""Targets and plans in the forms that all passes use."""

from __future__ import annotations

from typing import Any

from ..config_linear import AnyPlan
from ..errors import ConfigError
from ..schedules.target import CpuTarget, from_tvm_target, parse_target


def as_cpu_target(target: str | CpuTarget | Any) -> CpuTarget:
    """A target in any of its forms as :class:`CpuTarget`.

    Raises:
        TargetError: an unknown target.
    """
    if isinstance(target, CpuTarget):
        return target
    return parse_target(target) if isinstance(target, str) else from_tvm_target(target)


def plans_by_name(plans: tuple[AnyPlan, ...]) -> dict[str, AnyPlan]:
    """The plans under their layers' names.

    Raises:
        ConfigError: two plans for one layer.
    """
    by_name = {p.name: p for p in plans}
    if len(by_name) != len(plans):
        raise ConfigError("the plan names a layer twice")
    return by_name
