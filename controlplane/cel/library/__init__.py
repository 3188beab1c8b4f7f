"""Kubernetes' extensions of CEL as of v1.32, one library per module. Loaded with the CEL runtime, not before."""

from controlplane.cel.functions import Function
from controlplane.cel.library.authorizer import FUNCTIONS as AUTHORIZER
from controlplane.cel.library.formats import FUNCTIONS as FORMATS
from controlplane.cel.library.lists import FUNCTIONS as LISTS
from controlplane.cel.library.network import FUNCTIONS as NETWORK
from controlplane.cel.library.quantities import FUNCTIONS as QUANTITIES
from controlplane.cel.library.regex import FUNCTIONS as REGEX
from controlplane.cel.library.sets import FUNCTIONS as SETS
from controlplane.cel.library.strings import FUNCTIONS as STRINGS
from controlplane.cel.library.urls import FUNCTIONS as URLS


def _merged(*libraries: tuple[Function, ...]) -> tuple[Function, ...]:
    """One entry per name and form of call: strings and lists both have an `indexOf`."""
    found: dict[tuple[str, bool], list[Function]] = {}
    for library in libraries:
        for function in library:
            found.setdefault((function.name, function.member), []).append(function)
    return tuple(_one(same) for same in found.values())


def _one(same: list[Function]) -> Function:
    first = same[0]
    if len(same) == 1:
        return first
    by_receiver = {
        overload.parameters[0].name: function.implementation
        for function in same
        for overload in function.overloads
    }

    def dispatch(receiver: object, *arguments: object) -> object:
        name = "string" if isinstance(receiver, str) else "list"
        if name not in by_receiver:
            raise ValueError("no such overload")
        return by_receiver[name](receiver, *arguments)

    overloads = tuple(overload for function in same for overload in function.overloads)
    return Function(first.name, dispatch, overloads, first.member)


FUNCTIONS = _merged(AUTHORIZER, FORMATS, LISTS, NETWORK, QUANTITIES, REGEX, SETS, STRINGS, URLS)
