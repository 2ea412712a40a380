"""What is wrong with a configuration."""

from __future__ import annotations

from collections.abc import Mapping


class ConfigError(ValueError):
    """One or more fields that cannot be used; `errors` maps each field's name to a sentence.

    A parameter of a choice is named `field.parameter`, as in `strategy.server_lr`.
    """

    def __init__(self, errors: Mapping[str, str]) -> None:
        self.errors = dict(errors)
        super().__init__("; ".join(f"{name}: {text}" for name, text in self.errors.items()))
