"""Checks the expressions of ValidatingAdmissionPolicies against the types they are about."""

from controlplane.controllers.policy_status.controller import PolicyStatusController

__all__ = ["PolicyStatusController"]
