"""What a choice is: a kind with parameters of its own, from a family's catalogue. Standard library only.

A field of the configuration that is a choice holds a `Choice`: the name of a kind and values for that kind's
parameters, and for no others. Catalogues are filled by those who own the code (`training.kinds`, `incentives.kinds`,
`extensions`); forms, JSON schema, shell and documentation are made from them.
"""

from kinds.catalogue import FAMILIES, family, find, plug, register
from kinds.choice import Choice, checked
from kinds.errors import ConfigError
from kinds.kind import Kind
from kinds.parameter import Parameter, choice, clients, flag, number, whole

__all__ = [
    "FAMILIES",
    "Choice",
    "ConfigError",
    "Kind",
    "Parameter",
    "checked",
    "choice",
    "clients",
    "family",
    "find",
    "flag",
    "number",
    "plug",
    "register",
    "whole",
]
