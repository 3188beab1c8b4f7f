"""CEL as Kubernetes speaks it: expressions are type-checked once (`compile_expression`) and evaluated often.

Light to import: the CEL runtime is loaded by the first expression, so that clusters without any pay nothing.
"""

from controlplane.cel.authorization import AccessAnswer, AccessCheck, Authorize
from controlplane.cel.errors import CelCompileError, CelError, CelRuntimeError
from controlplane.cel.program import Bindings, Program, compile_expression
from controlplane.cel.schema import declared, to_cel
from controlplane.cel.types import (
    ANY_MAP,
    AUTHORIZER,
    BOOL,
    BYTES,
    DOUBLE,
    DURATION,
    DYN,
    INT,
    NULL,
    RESOURCE_CHECK,
    STRING,
    TIMESTAMP,
    UINT,
    CelType,
    list_of,
    map_of,
    object_of,
)

__all__ = [
    "ANY_MAP",
    "AUTHORIZER",
    "BOOL",
    "BYTES",
    "DOUBLE",
    "DURATION",
    "DYN",
    "INT",
    "NULL",
    "RESOURCE_CHECK",
    "STRING",
    "TIMESTAMP",
    "UINT",
    "AccessAnswer",
    "AccessCheck",
    "Authorize",
    "Bindings",
    "CelCompileError",
    "CelError",
    "CelRuntimeError",
    "CelType",
    "Program",
    "compile_expression",
    "declared",
    "list_of",
    "map_of",
    "object_of",
    "to_cel",
]
