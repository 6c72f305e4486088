"""A partition plan back from its JSON: what comes in is what `PartitionPlan.to_dict` gives, what goes out the same plan."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from typing import Any

from pydantic import TypeAdapter, ValidationError

from qcascade.errors import BundleError
from qcascade.plan import SCHEMA_VERSION, CaptureRecord, Costs, PartitionPlan, Region, Summary


@dataclasses.dataclass(frozen=True, slots=True)
class _Plan:
    """The fields of a plan that its JSON holds."""

    model: str
    target: str
    objective: str
    capture: CaptureRecord
    summary: Summary
    regions: tuple[Region, ...]


_COSTS = tuple(field.name for field in dataclasses.fields(Costs))
_ADAPTER = TypeAdapter(_Plan)


def plan_of(document: Mapping[str, Any]) -> PartitionPlan:
    """The plan of a document.

    Raises:
        BundleError: It is none, or of another version.

    Example:
        >>> import torch, qcascade
        >>> plan = qcascade.plan(torch.nn.Linear(4, 2), (torch.zeros(2, 4),))
        >>> plan_of(plan.to_dict()) == plan
        True
    """
    if document.get("schema_version") != SCHEMA_VERSION:
        raise BundleError(f"the plan has version {str(document.get('schema_version'))[:20]}; {SCHEMA_VERSION} is read.")
    try:
        nested = {key: value for key, value in document.items() if key != "schema_version"}
        nested["regions"] = [
            {**region, "candidates": [_nested(candidate) for candidate in region["candidates"]]}
            for region in nested["regions"]
        ]
        made = _ADAPTER.validate_json(json.dumps(nested), strict=True)
        plan = PartitionPlan(**{field.name: getattr(made, field.name) for field in dataclasses.fields(_Plan)})
    except (ValidationError, KeyError, TypeError, AttributeError) as error:
        raise BundleError(f"the plan is not valid: {str(error).splitlines()[0][:200]}.") from error
    if json.dumps(plan.to_dict()) != json.dumps(dict(document)):  # what is unknown would be lost
        raise BundleError("the plan is not valid: it has fields that a plan does not have, or in another order.")
    return plan


def _nested(candidate: Mapping[str, Any]) -> dict[str, Any]:
    costs = {name: candidate[name] for name in _COSTS}
    return {**{key: value for key, value in candidate.items() if key not in costs}, "costs": costs}
