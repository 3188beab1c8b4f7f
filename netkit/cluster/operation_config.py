"""Limits, audit log and Pod Security of the configuration's section `api`, named as kube-apiserver's flags are. Pure.

Called by `config`; `check` looks at the files it names before anything is made.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path

from controlplane.apiserver.admission.pod_security import Exemptions, PodSecurityConfiguration
from controlplane.apiserver.admission.pod_security.levels import LevelVersion, Policy, level_version
from controlplane.apiserver.audit.policy import PolicyError, load
from controlplane.apiserver.operation import OperationSettings
from netkit.cluster.errors import ConfigError
from netkit.cluster.fields import Fields


@dataclass(frozen=True, slots=True)
class OperationConfig:
    """`event_ttl` in seconds. `settings.audit_log_path` None = `audit.log` among the cluster's logs."""

    settings: OperationSettings = field(default_factory=OperationSettings)
    event_ttl: float = 3600.0
    pod_security: PodSecurityConfiguration = field(default_factory=PodSecurityConfiguration)

    def in_logs(self, logs: Path) -> OperationSettings:
        """The settings for a cluster that writes its logs there."""
        if self.settings.audit_policy_file is None or self.settings.audit_log_path is not None:
            return self.settings
        return replace(self.settings, audit_log_path=logs / "audit.log")


def operation(api: Fields) -> OperationConfig:
    """Raises ConfigError."""
    base = OperationConfig()
    default = base.settings
    timeout = api.seconds("requestTimeout", default.request_timeout)
    if timeout < 1:
        raise ConfigError("api.requestTimeout: must be at least 1s")
    settings = OperationSettings(
        request_timeout=timeout,
        max_requests_inflight=api.number("maxRequestsInflight", default.max_requests_inflight, 1, 100_000),
        audit_policy_file=api.path("auditPolicyFile"),
        audit_log_path=api.path("auditLogPath"),
        audit_log_max_size=api.number("auditLogMaxSize", default.audit_log_max_size, 0, 1_000_000),
        audit_log_max_backup=api.number("auditLogMaxBackup", default.audit_log_max_backup, 0, 10_000),
    )
    found = OperationConfig(
        settings, api.seconds("eventTTL", base.event_ttl), _pod_security(api.section("podSecurity"))
    )
    if found.event_ttl < 1:
        raise ConfigError("api.eventTTL: must be at least 1s")
    for name, value, unset in (
        ("auditLogPath", settings.audit_log_path, None),
        ("auditLogMaxSize", settings.audit_log_max_size, default.audit_log_max_size),
        ("auditLogMaxBackup", settings.audit_log_max_backup, default.audit_log_max_backup),
    ):
        if settings.audit_policy_file is None and value != unset:
            raise ConfigError(
                f"api.{name}: is given, but nothing is audited", "name a policy in api.auditPolicyFile"
            )
    return found


def check(config: OperationConfig) -> None:
    """Whether the files can be used. Raises ConfigError."""
    policy, path = config.settings.audit_policy_file, config.settings.audit_log_path
    if policy is not None:
        try:
            load(policy)
        except PolicyError as error:
            raise ConfigError(f"api.auditPolicyFile: {error}") from None
        except OSError as error:
            raise ConfigError(f"api.auditPolicyFile: {policy}: {error.strerror or error}") from None
    if path is not None and path.is_dir():
        raise ConfigError(f"api.auditLogPath: {path} is a directory", "name a file in it")


def _pod_security(section: Fields) -> PodSecurityConfiguration:
    defaults, exemptions = section.section("defaults"), section.section("exemptions")
    policy = Policy(*(_mode(defaults, mode) for mode in ("enforce", "audit", "warn")))
    exempt = Exemptions(
        usernames=frozenset(exemptions.strings("usernames")),
        namespaces=frozenset(exemptions.strings("namespaces")),
        runtime_classes=frozenset(exemptions.strings("runtimeClasses")),
    )
    for each in (defaults, exemptions, section):
        each.finish()
    return PodSecurityConfiguration(policy, exempt)


def _mode(defaults: Fields, mode: str) -> LevelVersion:
    level = defaults.text(mode, "privileged", ("privileged", "baseline", "restricted"))
    version = defaults.text(f"{mode}-version", "latest")
    try:
        return level_version(level, version)
    except ValueError as error:
        raise ConfigError(f"api.podSecurity.defaults.{mode}-version: {error}") from None
