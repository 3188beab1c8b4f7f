"""`serviceaccounts/NAME/token`: a token for an account, bound to an object if that is wished.

Checks, their order and texts are upstream's (`pkg/registry/core/serviceaccount/storage/token.go`, v1.32).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import orjson

from controlplane.apiserver.admission.plugin import Operation
from controlplane.apiserver.authn.service_account import TokenIssuer
from controlplane.apiserver.bodies import Target
from controlplane.apiserver.handlers.call import Call
from controlplane.apiserver.messages import ApiResponse, typed
from controlplane.errors import BadRequest, Cause, Object, conflict, invalid, not_found
from controlplane.meta.timestamps import format_time
from controlplane.resources.fieldpath import invalid as invalid_field

TARGET = Target("authentication.k8s.io/v1", "TokenRequest")
DEFAULT_SECONDS = 3600
MIN_SECONDS = 600
MAX_SECONDS = 1 << 32
WARN_ONLY_SECONDS = 3607
"""The seconds asked for by the volumes that admission adds; see `TokenIssuer.extend_expiration`."""
_EXTENDED_SECONDS = 365 * 24 * 3600


@dataclass(frozen=True, slots=True)
class _Bound:
    """The objects a token tells of."""

    pod: Object | None = None
    node: Object | None = None
    secret: Object | None = None


@dataclass(frozen=True, slots=True)
class TokenRequests:
    """The handler over one issuer."""

    issuer: TokenIssuer

    async def create(self, call: Call) -> ApiResponse:
        call.wants(plain_only=True)
        options = call.write_options()
        request = call.body(TARGET)
        spec = request["spec"] = {**(request.get("spec") or {})}
        if spec.get("expirationSeconds") is None:
            spec["expirationSeconds"] = DEFAULT_SECONDS
        _check_names(request, call)
        account = (await call.registry.get(call.kind, call.namespace, call.name)).object
        now = int(time.time())
        self._complete(request, account, now)
        await call.registry.admit(
            Operation.CREATE,
            call.kind,
            call.namespace,
            call.name,
            "token",
            ("authentication.k8s.io", "v1", "TokenRequest"),
            request,
            options.user,
            dry_run=options.dry_run,
            remarks=options.remarks,
            check=lambda: _causes(request),
        )
        bound = await _bound(call, request["spec"], call.name)
        seconds, warn_after = self._expiration(request, bound, call)
        token = self.issuer.bound(
            account,
            request["spec"]["audiences"],
            now,
            seconds,
            pod=bound.pod,
            node=bound.node,
            secret=bound.secret,
            warn_after=warn_after,
        )
        ends = datetime.fromtimestamp(now + request["spec"]["expirationSeconds"], UTC)
        request["status"] = {"token": token, "expirationTimestamp": format_time(ends)}
        return call.warned(typed(201, orjson.dumps(request)))

    def _complete(self, request: Object, account: Object, now: int) -> None:
        metadata = request["metadata"]
        metadata["name"] = account["metadata"]["name"]
        metadata["namespace"] = account["metadata"]["namespace"]
        metadata["creationTimestamp"] = format_time(datetime.fromtimestamp(now, UTC))
        if not request["spec"].get("audiences"):
            request["spec"]["audiences"] = list(self.issuer.audiences)
        request.pop("status", None)

    def _expiration(self, request: Object, bound: _Bound, call: Call) -> tuple[int, int]:
        """The seconds the token is good for, and after how many its use is remarked (0 = never)."""
        spec, limit = request["spec"], self.issuer.max_expiration
        asked = spec["expirationSeconds"]
        if 0 < limit < asked:
            call.warnings.append(f"requested expiration of {asked} seconds shortened to {limit} seconds")
            asked = spec["expirationSeconds"] = limit
        usual = bound.pod is not None and asked == WARN_ONLY_SECONDS
        if self.issuer.extend_expiration and usual and set(spec["audiences"]) <= set(self.issuer.audiences):
            return _EXTENDED_SECONDS, asked
        return asked, 0


def _check_names(request: Object, call: Call) -> None:
    metadata = request["metadata"]
    for field, wanted in (("name", call.name), ("namespace", call.namespace)):
        given = metadata.get(field)
        if given and given != wanted:
            cause = invalid_field(
                f"metadata.{field}", given, f"must match the service account {field} if specified"
            )
            raise invalid("TokenRequest", "authentication.k8s.io", call.name, [cause])


def _causes(request: Object) -> Sequence[Cause]:
    seconds, path = request["spec"]["expirationSeconds"], "spec.expirationSeconds"
    causes = []
    if seconds < MIN_SECONDS:
        causes.append(invalid_field(path, seconds, "may not specify a duration less than 10 minutes"))
    if seconds > MAX_SECONDS:
        causes.append(invalid_field(path, seconds, "may not specify a duration larger than 2^32 seconds"))
    return causes


async def _bound(call: Call, spec: Object, account: str) -> _Bound:
    reference = spec.get("boundObjectRef")
    if not reference:
        return _Bound()
    version, kind, name = (reference.get(key) or "" for key in ("apiVersion", "kind", "name"))
    node = None
    match (version, kind):
        case ("v1", "Pod"):
            obj = await _found(call, "pods", call.namespace, name)
            if obj["spec"].get("serviceAccountName") != account:
                raise BadRequest(
                    f'cannot bind token for serviceaccount "{account}" to pod running with different '
                    "serviceaccount name."
                )
            node = await _node_of(call, obj)
            bound = _Bound(pod=obj, node=node)
        case ("v1", "Node"):
            obj = await _found(call, "nodes", "", name)
            bound = _Bound(node=obj)
        case ("v1", "Secret"):
            obj = await _found(call, "secrets", call.namespace, name)
            bound = _Bound(secret=obj)
        case _:
            group, _, short = version.rpartition("/")
            raise BadRequest(
                f'cannot bind token for serviceaccount "{account}" to object of type '
                f"{group}/{short}, Kind={kind}"
            )
    uid, present = reference.get("uid"), obj["metadata"]["uid"]
    if uid and uid != present:
        raise conflict(
            kind,
            "",
            name,
            f"the UID in the bound object reference ({uid}) does not match the UID in record. "
            "The object might have been deleted and then recreated",
        )
    return bound


async def _found(call: Call, plural: str, namespace: str, name: str) -> Object:
    obj = await call.registry.lookup("", plural, namespace, name)
    if obj is None:
        raise not_found(plural, "", name)
    return obj


async def _node_of(call: Call, pod: Object) -> Object | None:
    """The pod's node; only its name when the node is not there."""
    name = pod["spec"].get("nodeName")
    if not name:
        return None
    node = await call.registry.lookup("", "nodes", "", name)
    return node or {"metadata": {"name": name}}
