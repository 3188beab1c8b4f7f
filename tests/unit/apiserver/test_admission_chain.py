"""Which admission plug-ins take part, in which order and phase; and what a cluster without CEL does not load."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from controlplane.apiserver.admission.chain import ORDER, assemble
from controlplane.apiserver.admission.plugin import AdmissionRequest
from controlplane.apiserver.admission.plugins import admission_chain
from controlplane.apiserver.admission.stored_objects import StoredObjects
from controlplane.apiserver.authz.modes import Authorization, AuthorizationSettings
from controlplane.apiserver.served_kinds import ServedKinds
from controlplane.apiserver.settings import ControlPlaneSettings
from controlplane.apiserver.webhook_client import EndpointResolver, WebhookClient
from controlplane.resources.catalog import KINDS


class Both:
    async def admit(self, request: AdmissionRequest) -> None: ...

    async def validate(self, request: AdmissionRequest) -> None: ...


class Validating:
    async def validate(self, request: AdmissionRequest) -> None: ...


def test_order_and_phases() -> None:
    quota, limits, security = Validating(), Both(), Validating()
    chain = assemble({"ResourceQuota": quota, "PodSecurity": security, "LimitRanger": limits})
    assert chain.names == ("LimitRanger", "PodSecurity", "ResourceQuota")
    assert chain.mutating == (limits,)
    assert chain.validating == (limits, security, quota)


def test_switching_off_and_on() -> None:
    plugins = {"PodSecurity": Validating(), "AlwaysDeny": Validating()}
    assert assemble(plugins).names == ("PodSecurity",)
    assert assemble(plugins, disabled=["PodSecurity"], enabled=["AlwaysDeny"]).names == ("AlwaysDeny",)
    with pytest.raises(ValueError, match="unknown admission plug-in 'PodSafety'"):
        assemble(plugins, disabled=["PodSafety"])
    with pytest.raises(ValueError, match="overlapped"):
        assemble(plugins, disabled=["AlwaysDeny"], enabled=["AlwaysDeny"])


async def nowhere(host: str, port: int) -> None:
    raise ConnectionRefusedError


def test_the_servers_own_chain(tmp_path: Path) -> None:
    settings = ControlPlaneSettings(
        data_dir=tmp_path, pki_dir=tmp_path, disabled_admission=("ValidatingAdmissionWebhook",)
    )
    client = WebhookClient(EndpointResolver(), nowhere)  # type: ignore[arg-type]
    authorization = Authorization.of(AuthorizationSettings())
    chain = admission_chain(settings, ServedKinds(KINDS), authorization, StoredObjects(), client)
    assert "ValidatingAdmissionWebhook" not in chain.names
    assert {"NamespaceLifecycle", "PodSecurity", "MutatingAdmissionWebhook", "ResourceQuota"} <= set(
        chain.names
    )
    assert [name for name in ORDER if name in chain.names] == list(chain.names)
    assert chain.names[-1] == "ResourceQuota"


def test_cel_is_not_loaded_before_it_is_needed() -> None:
    code = (
        "import sys, controlplane.apiserver.server, controlplane.control_loop\n"
        "heavy = {'cel_expr_python', 'google.protobuf', 're2'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
