"""A Hugging Face model's config as JSON, and back, so that `Trainer` and the like find it on a hybrid.

What comes in: the config object. What goes out: its own dict and its `model_type`, by which transformers' own class is
found again. Configs of other kinds, and those that do not come back equal, are left out, with a note. Reading bounds
integers, since a config makes lists of so many layers and labels.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from qcascade.errors import BundleError

_MOST = 2**22
_MOST_LABELS = 100_000


def config_document(config: Any) -> tuple[dict[str, Any] | None, str | None]:
    """The document of a config, or None with a note where there is one that a bundle has no form for."""
    if config is None:
        return None, None
    left_out = f"the model's config ({type(config).__name__}) is left out: only those of transformers come back"
    if not hasattr(config, "to_dict") or not isinstance(getattr(config, "model_type", None), str):
        return None, left_out
    try:
        document = _written(config)
        again = config_of(document)
    except (BundleError, TypeError, ValueError):
        return None, left_out
    if type(again) is not type(config) or _written(again) != document:
        return None, left_out
    return document, None


def config_of(document: Mapping[str, Any] | None) -> Any:
    """The config of a document; None where there is none or transformers is not installed.

    Raises:
        BundleError: transformers has no such config, or does not take these values.
    """
    if document is None:
        return None
    try:
        from transformers.models.auto.configuration_auto import CONFIG_MAPPING
    except ImportError:
        return None
    _check(document)
    name = document.get("model_type")
    if not isinstance(name, str) or name not in CONFIG_MAPPING:
        raise BundleError(f"graph.json: transformers has no config {str(name)[:80]!r}.")
    try:
        return CONFIG_MAPPING[name].from_dict(dict(document))
    except Exception as error:  # transformers' own code on a file's values may raise anything
        raise BundleError(
            f"graph.json: transformers' {name} config does not take these values: {str(error)[:200]}."
        ) from error


def _written(config: Any) -> dict[str, Any]:
    """A config's fields; where it came from and the version that wrote it are no part of the model."""
    fields = json.loads(json.dumps(config.to_dict(), allow_nan=False))
    return {
        name: value for name, value in fields.items() if not name.startswith("_") and name != "transformers_version"
    }


def _check(value: Any) -> None:
    """Plain names, and integers that make no endless lists."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            if not isinstance(key, str) or key.startswith("_") or key in ("auto_map", "custom_pipelines"):
                raise BundleError(f"graph.json: a config has no field {str(key)[:80]!r}.")
            if key == "num_labels" and isinstance(item, int) and item > _MOST_LABELS:
                raise BundleError(f"graph.json: a config has at most {_MOST_LABELS} labels.")
            _check(item)
    elif isinstance(value, list):
        for item in value:
            _check(item)
    elif isinstance(value, int) and abs(value) > _MOST:
        raise BundleError(f"graph.json: a config holds the integer {value}; at most {_MOST} is accepted.")
