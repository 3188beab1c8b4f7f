"""The admission plug-in PodSecurity: pods, what has a pod template, and the labels of namespaces.

Validating: it sees objects as they are about to be stored.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from controlplane.apiserver.admission.plugin import AdmissionRequest, Operation
from controlplane.apiserver.admission.pod_security.evaluation import details, evaluate, reasons
from controlplane.apiserver.admission.pod_security.findings import Finding, PodView
from controlplane.apiserver.admission.pod_security.levels import (
    PREFIX,
    Level,
    LevelVersion,
    Policy,
    policy_of,
)
from controlplane.errors import Cause, InternalError, Object, invalid
from controlplane.meta.objects import dig

MAX_PODS = 3000
"""Pods that are looked at when a namespace's level changes."""
_IGNORED_SUBRESOURCES = frozenset(
    {"exec", "attach", "binding", "eviction", "log", "portforward", "proxy", "status"}
)
_TEMPLATES: Mapping[tuple[str, str], tuple[str, ...]] = {
    ("", "podtemplates"): ("template",),
    ("", "replicationcontrollers"): ("spec", "template"),
    ("apps", "daemonsets"): ("spec", "template"),
    ("apps", "deployments"): ("spec", "template"),
    ("apps", "replicasets"): ("spec", "template"),
    ("apps", "statefulsets"): ("spec", "template"),
    ("batch", "cronjobs"): ("spec", "jobTemplate", "spec", "template"),
    ("batch", "jobs"): ("spec", "template"),
}
_CONTAINER_LISTS = ("containers", "initContainers", "ephemeralContainers")


@dataclass(frozen=True, slots=True)
class Exemptions:
    """Whom the standards do not concern."""

    usernames: frozenset[str] = frozenset()
    namespaces: frozenset[str] = frozenset()
    runtime_classes: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class PodSecurityConfiguration:
    """`defaults` is the policy of namespaces without labels."""

    defaults: Policy = field(default_factory=Policy)
    exemptions: Exemptions = field(default_factory=Exemptions)


class PodSecurity:
    """See `plugin.ValidatingPlugin`. `defaults` is the policy of namespaces without labels."""

    def __init__(self, defaults: Policy | None = None, exemptions: Exemptions | None = None) -> None:
        self._defaults = defaults or Policy()
        self._exemptions = exemptions or Exemptions()

    async def validate(self, request: AdmissionRequest) -> None:
        if request.operation not in (Operation.CREATE, Operation.UPDATE) or request.obj is None:
            return
        resource = (request.kind.group, request.kind.plural)
        if resource == ("", "namespaces"):
            if not request.subresource:
                await self._check_namespace(request, request.obj)
        elif resource == ("", "pods"):
            if request.subresource not in _IGNORED_SUBRESOURCES:
                await self._check_pod(request, request.obj)
        elif resource in _TEMPLATES and not request.subresource:
            await self._check_template(request, dig(request.obj, *_TEMPLATES[resource]))

    async def _check_namespace(self, request: AdmissionRequest, namespace: Object) -> None:
        new, causes = policy_of(namespace["metadata"].get("labels"), self._defaults)
        if request.operation is Operation.CREATE:
            if causes:
                raise invalid("Namespace", "", request.name, causes)
            return
        before = (request.old or {}).get("metadata") or {}
        old, old_causes = policy_of(before.get("labels"), self._defaults)
        if causes and causes != old_causes:
            raise invalid("Namespace", "", request.name, causes)
        if not _is_stricter(new.enforce, old.enforce) or request.name in self._exemptions.namespaces:
            return
        pods = await request.listing("", "pods", request.name)
        request.remarks.warnings.extend(self._violating_pods(request.name, new.enforce, pods))

    def _violating_pods(self, namespace: str, enforce: LevelVersion, pods: Sequence[Object]) -> list[str]:
        found: dict[str, list[str]] = {}
        for pod in pods[:MAX_PODS]:
            if pod["spec"].get("runtimeClassName") in self._exemptions.runtime_classes:
                continue
            findings = evaluate(enforce, PodView(pod["metadata"], pod["spec"]))
            if findings:
                found.setdefault(reasons(findings), []).append(pod["metadata"]["name"])
        warnings = []
        if len(pods) > MAX_PODS:
            warnings.append(
                f"new PodSecurity enforce level only checked against the first {MAX_PODS} of {len(pods)} "
                "existing pods"
            )
        if found:
            warnings.append(
                f'existing pods in namespace "{namespace}" violate the new PodSecurity enforce level "{enforce}"'
            )
        return warnings + sorted(_decorated(names, why) for why, names in found.items())

    async def _check_pod(self, request: AdmissionRequest, pod: Object) -> None:
        if self._is_exempt(request):
            return
        policy, causes = await self._policy(request)
        if not causes and policy.is_privileged:
            return
        if request.operation is Operation.UPDATE and not _is_significant(pod, request.old or {}):
            return
        self._evaluate(request, policy, causes, PodView(pod["metadata"], pod.get("spec") or {}), enforce=True)

    async def _check_template(self, request: AdmissionRequest, template: Object | None) -> None:
        if not template or self._is_exempt(request):
            return
        policy, causes = await self._policy(request)
        if not causes and not (policy.audit.level or policy.warn.level):
            return
        pod = PodView(template.get("metadata") or {}, template.get("spec") or {})
        self._evaluate(request, policy, causes, pod, enforce=False)

    def _is_exempt(self, request: AdmissionRequest) -> bool:
        exempt = ""
        if request.namespace in self._exemptions.namespaces:
            exempt = "namespace"
        elif request.user.name in self._exemptions.usernames:
            exempt = "user"
        if exempt:
            request.remarks.annotations[f"{PREFIX}exempt"] = exempt
        return bool(exempt)

    async def _policy(self, request: AdmissionRequest) -> tuple[Policy, list[Cause]]:
        namespace = await request.lookup("", "namespaces", "", request.namespace)
        if namespace is None:
            raise InternalError(f'failed to lookup namespace "{request.namespace}"')
        return policy_of(namespace["metadata"].get("labels"), self._defaults)

    def _evaluate(
        self, request: AdmissionRequest, policy: Policy, causes: list[Cause], pod: PodView, *, enforce: bool
    ) -> None:
        """Raises Forbidden; or leaves warnings and annotations."""
        annotations = request.remarks.annotations
        if pod.spec.get("runtimeClassName") in self._exemptions.runtime_classes:
            annotations[f"{PREFIX}exempt"] = "runtimeClass"
            return
        if causes:
            text = ", ".join(f"{cause.field}: {cause.message}" for cause in causes)
            annotations[f"{PREFIX}error"] = f"Failed to parse policy: {text}"
        known: dict[LevelVersion, Sequence[Finding]] = {}

        def findings_at(level: LevelVersion) -> Sequence[Finding]:
            if level not in known:
                known[level] = evaluate(level, pod)
            return known[level]

        audited = findings_at(policy.audit)
        if audited:
            annotations[f"{PREFIX}audit-violations"] = (
                f'would violate PodSecurity "{policy.audit}": {details(audited)}'
            )
        if enforce:
            annotations[f"{PREFIX}enforce-policy"] = str(policy.enforce)
            violations = findings_at(policy.enforce)
            if violations:
                raise request.forbid(f'violates PodSecurity "{policy.enforce}": {details(violations)}')
        warned = findings_at(policy.warn)
        if warned:
            request.remarks.warnings.append(f'would violate PodSecurity "{policy.warn}": {details(warned)}')


def _is_stricter(new: LevelVersion, old: LevelVersion) -> bool:
    """Whether pods that were right may be wrong now."""
    if new == old or new.level is Level.PRIVILEGED:
        return False
    return new.minor != old.minor or new.level > old.level


def _decorated(names: Sequence[str], why: str) -> str:
    first, others = min(names), len(names) - 1
    if not others:
        return f"{first}: {why}"
    word = "pod" if others == 1 else "pods"
    return f"{first} (and {others} other {word}): {why}"


def _is_significant(pod: Object, old: Object) -> bool:
    """Whether an update changes anything the checks look at: images and containers, and seccomp annotations."""
    annotations = pod["metadata"].get("annotations") or {}
    before = (old.get("metadata") or {}).get("annotations") or {}
    seccomp = [key for key in {*annotations, *before} if "seccomp.security.alpha.kubernetes.io/" in key]
    if any(annotations.get(key) != before.get(key) for key in seccomp):
        return True
    spec, old_spec = pod.get("spec") or {}, old.get("spec") or {}
    for containers in _CONTAINER_LISTS:
        now = [(item.get("name"), item.get("image")) for item in spec.get(containers) or ()]
        then = [(item.get("name"), item.get("image")) for item in old_spec.get(containers) or ()]
        if now != then:
            return True
    return False
