"""PodSecurity: the Pod Security Standards of v1.32, enforced, audited and warned about by namespace labels."""

from controlplane.apiserver.admission.pod_security.plugin import (
    Exemptions,
    PodSecurity,
    PodSecurityConfiguration,
)

__all__ = ["Exemptions", "PodSecurity", "PodSecurityConfiguration"]
