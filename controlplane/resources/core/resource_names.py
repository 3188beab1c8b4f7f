"""Which names resources may have in quotas, limit ranges and containers (pkg/apis/core/helper, v1.32). Pure."""

from __future__ import annotations

from controlplane.meta.names import qualified_name
from controlplane.resources.rules import Field

COMPUTE = frozenset({"cpu", "memory", "ephemeral-storage"})
OBJECT_COUNTS = frozenset({
    "pods", "services", "replicationcontrollers", "resourcequotas", "secrets", "configmaps", "persistentvolumeclaims",
    "services.nodeports", "services.loadbalancers",
})  # fmt: skip
POD_COMPUTE = frozenset({"cpu", "memory", "limits.cpu", "limits.memory", "requests.cpu", "requests.memory"})
_QUOTA = OBJECT_COUNTS | POD_COMPUTE | {
    "ephemeral-storage", "requests.storage", "requests.ephemeral-storage", "limits.ephemeral-storage",
}  # fmt: skip
_HUGE_PAGES = "hugepages-"
_NATIVE = "kubernetes.io/"


def is_quota_standard(name: str) -> bool:
    return name in _QUOTA or name.startswith((_HUGE_PAGES, f"requests.{_HUGE_PAGES}"))


def is_standard_container(name: str) -> bool:
    return name in COMPUTE or name.startswith(_HUGE_PAGES)


def is_extended(name: str) -> bool:
    """A device or other resource with a domain of its own, e.g. `example.com/gpu`."""
    return "/" in name and _NATIVE not in name and not name.startswith("requests.")


def is_integer(name: str) -> bool:
    """Whether only whole amounts make sense."""
    return name in OBJECT_COUNTS or is_extended(name)


def may_overcommit(name: str) -> bool:
    """Whether a limit may be larger than the request."""
    return ("/" not in name and not name.startswith(_HUGE_PAGES)) or _NATIVE in name


def validate_quota_name(name: Field) -> None:
    if _is_qualified(name) and "/" not in name.text and not is_quota_standard(name.text):
        name.invalid("must be a standard resource for quotas")


def validate_name(name: Field) -> None:
    standard = is_quota_standard(name.text) or name.text in ("storage", *COMPUTE)
    if _is_qualified(name) and "/" not in name.text and not standard:
        name.invalid("must be a standard resource type or fully qualified")


def validate_container_name(name: Field) -> None:
    if _is_qualified(name) and "/" not in name.text and not is_standard_container(name.text):
        name.invalid("must be a standard resource for containers")


def _is_qualified(name: Field) -> bool:
    messages = qualified_name(name.text)
    for message in messages:
        name.invalid(message)
    return not messages
