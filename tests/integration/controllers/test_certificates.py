"""Certificate requests from the request to the certificate, and their end."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID
from support.apiserver import Served, cluster
from support.authentication import Rights, whoami
from support.client_wait import running
from support.requests import CLIENT_USAGES, asked, request_object, write_key

from controlplane.apiserver.local_clients import local_transport
from controlplane.apiserver.pki import CertificateAuthority
from controlplane.apiserver.user import UserInfo
from controlplane.client.client import Client
from controlplane.client.informer import Informers
from controlplane.controllers.certificates.approving_controller import CertificateApprovingController
from controlplane.controllers.certificates.cleaning_controller import is_settled
from controlplane.controllers.certificates.issuing import Signer
from controlplane.controllers.certificates.signers import SIGNERS
from controlplane.controllers.certificates.signing_controller import CertificateSigningController

PATH = "/apis/certificates.k8s.io/v1/certificatesigningrequests"
KUBELET = "kubernetes.io/kube-apiserver-client-kubelet"
SERVING = "kubernetes.io/kubelet-serving"
CLIENT = "kubernetes.io/kube-apiserver-client"
SERVING_USAGES = ("digital signature", "server auth")


@asynccontextmanager
async def world(directory: Path, rights: Rights | None = None) -> AsyncIterator[Served]:
    async with cluster(directory, authorizer=rights or Rights()) as api:
        client = Client(local_transport(api.server, UserInfo("controller", groups=("system:masters",))))
        informers = Informers(client)
        signing = CertificateSigningController(client, informers, Signer.load(directory / "pki"))
        approving = CertificateApprovingController(client, informers)
        async with running(informers.run(), signing.run(), approving.run()):
            yield api


async def settled(api: Served, name: str, field: str = "certificate", length: int = 1) -> Any:
    """The request's status once it has `field`, of at least that length."""
    async with asyncio.timeout(10):
        while True:
            status = (await api.json("GET", f"{PATH}/{name}")).get("status") or {}
            if len(status.get(field, ())) >= length:
                return status
            await asyncio.sleep(0.005)


CLERK = {"Impersonate-User": "clerk"}


async def approve(
    api: Served, name: str, type_: str = "Approved", code: int = 200, headers: Any = None
) -> Any:
    request = await api.json("GET", f"{PATH}/{name}")
    condition = {"type": type_, "status": "True", "reason": "Test", "message": "fine"}
    request["status"] = {"conditions": [condition]}
    return await api.json("PUT", f"{PATH}/{name}/approval", code, json=request, headers=headers)


async def test_a_certificate_is_asked_for_approved_signed_and_used(tmp_path: Path) -> None:
    async with world(tmp_path) as api:
        key = ec.generate_private_key(ec.SECP256R1())
        body = request_object("jane", asked("jane", ["dev"], key=key), expirationSeconds=3600)
        body["spec"] |= {"username": "somebody", "groups": ["system:masters"], "extra": {"a": ["b"]}}
        made = await api.json("POST", PATH, 201, json=body)
        spec = made["spec"]
        assert (spec["username"], spec["groups"]) == (
            "kubernetes-admin", ["system:masters", "system:authenticated"],
        )  # fmt: skip
        assert list(spec["extra"]) == ["authentication.kubernetes.io/credential-id"]
        assert "status" not in made or made["status"] == {}
        approved = await approve(api, "jane")
        (condition,) = approved["status"]["conditions"]
        assert condition["lastUpdateTime"]
        assert condition["lastTransitionTime"]
        pem = base64.b64decode((await settled(api, "jane"))["certificate"])
        certificate = x509.load_pem_x509_certificate(pem)
        life = certificate.not_valid_after_utc - datetime.now(UTC)
        assert timedelta(minutes=58) < life <= timedelta(hours=1)
        usage = certificate.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value
        assert list(usage) == [ExtendedKeyUsageOID.CLIENT_AUTH]
        (tmp_path / "jane.crt").write_bytes(pem)
        context = api.client_tls(certificate=False)
        context.load_cert_chain(tmp_path / "jane.crt", write_key(tmp_path / "jane.key", key))
        _, user = await whoami(api, tls=context)
        assert (user["username"], user["groups"]) == ("jane", ["dev", "system:authenticated"])


async def test_nodes_are_approved_by_themselves(tmp_path: Path) -> None:
    rights = Rights()
    who = {"Impersonate-User": "system:bootstrap:abcdef", "Impersonate-Group": "system:bootstrappers"}
    async with world(tmp_path, rights) as api:
        request = asked("system:node:n1", ["system:nodes"])
        await api.json("POST", PATH, 201, json=request_object("n1", request, KUBELET), headers=who)
        status = await settled(api, "n1")
        (condition,) = status["conditions"]
        assert (condition["reason"], condition["message"]) == (
            "AutoApproved", "Auto approving kubelet client certificate after SubjectAccessReview.",
        )  # fmt: skip
        asked_for = [a for a in rights.asked if a.info.subresource == "nodeclient"]
        assert asked_for[0].user.name == "system:bootstrap:abcdef"
        rights.refused.add(("create", "certificatesigningrequests/nodeclient", ""))
        again = request_object("n2", asked("system:node:n2", ["system:nodes"]), KUBELET)
        await api.json("POST", PATH, 201, json=again, headers=who)
        # What nobody approves by itself waits; administrators' own are approved, which shows that it was looked at.
        third = request_object("n3", asked("system:node:n3", ["system:nodes"]), KUBELET)
        await api.json("POST", PATH, 201, json=third)
        await settled(api, "n3")
        assert (
            "status" not in (await api.json("GET", f"{PATH}/n2"))
            or not (await api.json("GET", f"{PATH}/n2"))["status"]
        )
        table = {"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io"}
        rows = (await api.json("GET", PATH, headers=table))["rows"]
        assert [row["cells"][5] for row in rows if row["cells"][0] == "n3"] == ["Approved,Issued"]


async def test_what_a_signer_does_not_take_fails(tmp_path: Path) -> None:
    async with world(tmp_path) as api:
        body = request_object("bad", asked("jane"), CLIENT, ("server auth",))
        await api.json("POST", PATH, 201, json=body)
        await approve(api, "bad")
        failed = (await settled(api, "bad", "conditions", 2))["conditions"][1]
        assert (failed["type"], failed["reason"], failed["message"]) == (
            "Failed", "SignerValidationFailure", "invalid usages for client certificate: [server auth]",
        )  # fmt: skip
        # Signers elsewhere are not our business.
        other = request_object("other", asked("jane"), "example.com/signer", ("server auth",))
        await api.json("POST", PATH, 201, json=other)
        await approve(api, "other")
        assert "certificate" not in (await api.json("GET", f"{PATH}/other"))["status"]


async def test_who_may_approve_and_sign(tmp_path: Path) -> None:
    rights = Rights({("approve", "signers", CLIENT), ("approve", "signers", "kubernetes.io/*")})
    async with cluster(tmp_path, authorizer=rights) as api:
        await api.json("POST", PATH, 201, json=request_object("a", asked("jane")))
        status = await approve(api, "a", code=403, headers=CLERK)
        assert status["message"] == (
            'certificatesigningrequests.certificates.k8s.io "a" is forbidden: user not permitted to approve '
            f'requests with signerName "{CLIENT}"'
        )
        rights.refused = {("approve", "signers", CLIENT)}
        await approve(api, "a", headers=CLERK)
        rights.refused = {("sign", "signers", CLIENT), ("sign", "signers", "kubernetes.io/*")}
        request = await api.json("GET", f"{PATH}/a")
        request["status"]["certificate"] = base64.b64encode(api.authority.certificate_pem).decode()
        refused = await api.json("PUT", f"{PATH}/a/status", 403, json=request, headers=CLERK)
        assert "user not permitted to sign requests" in refused["message"]
        rights.refused = set()
        await api.json("PUT", f"{PATH}/a/status", json=request, headers=CLERK)


async def test_rules_of_changes(tmp_path: Path) -> None:
    async with cluster(tmp_path, authorizer=Rights()) as api:
        masters = request_object("m", asked("jane", ["system:masters"]))
        refused = await api.json("POST", PATH, 403, json=masters)
        assert f"use of {CLIENT} signer with system:masters group is not allowed" in refused["message"]
        await api.json("POST", PATH, 201, json=request_object("a", asked("jane")))
        await approve(api, "a")
        request = await api.json("GET", f"{PATH}/a")
        changed = {**request, "spec": {**request["spec"], "username": "other"}, "status": {}}
        assert (await api.json("PUT", f"{PATH}/a", json=changed))["spec"] == request["spec"]
        fault = await approve(api, "a", "Denied", 422)
        assert 'updates may not remove a condition of type "Approved"' in fault["message"]
        both = await api.json("GET", f"{PATH}/a")
        both["status"]["conditions"].append({"type": "Denied", "status": "True"})
        fault = await api.json("PUT", f"{PATH}/a/approval", 422, json=both)
        assert "Approved and Denied conditions are mutually exclusive" in fault["message"]
        both["status"]["conditions"][1]["type"] = "Failed"
        both["status"]["certificate"] = base64.b64encode(b"nothing").decode()
        fault = await api.json("PUT", f"{PATH}/a/status", 422, json=both)
        assert "must contain at least one CERTIFICATE PEM block" in fault["message"]


async def test_requests_that_are_none(tmp_path: Path) -> None:
    good = request_object("x", asked("jane"))
    async with cluster(tmp_path, authorizer=Rights()) as api:
        for spec, told in (
            ({"request": base64.b64encode(b"x").decode()}, "PEM block type must be CERTIFICATE REQUEST"),
            ({"usages": []}, "spec.usages: Required value"),
            ({"usages": ["client auth", "walking"]}, 'spec.usages[1]: Unsupported value: "walking"'),
            ({"usages": ["client auth", "client auth"]}, "spec.usages[1]: Duplicate value"),
            ({"signerName": ""}, "spec.signerName: Required value"),
            ({"signerName": "x"}, "must be a fully qualified domain and path of the form"),
            ({"signerName": "x/y"}, "should be a domain with at least two segments separated by dots"),
            ({"signerName": "kubernetes.io/legacy-unknown"}, "the legacy signerName is not allowed"),
            ({"expirationSeconds": 599}, "may not specify a duration less than 600 seconds (10 minutes)"),
        ):
            body = {**good, "spec": {**good["spec"], **spec}}
            assert told in (await api.json("POST", PATH, 422, json=body))["message"]


NODES = ("system:nodes",)


@pytest.mark.parametrize(
    ("signer", "request_", "usages", "fault"),
    [
        (KUBELET, asked("system:node:a", NODES), CLIENT_USAGES, ""),
        (KUBELET, asked("system:node:a", NODES), CLIENT_USAGES[:2], ""),
        (KUBELET, asked("a", NODES), CLIENT_USAGES, "subject common name does not begin with system:node:"),
        (KUBELET, asked("system:node:a"), CLIENT_USAGES, "subject organization is not system:nodes"),
        (KUBELET, asked("system:node:a", ("system:nodes", "x")), CLIENT_USAGES,
         "subject organization is not system:nodes"),
        (KUBELET, asked("system:node:a", NODES, dns=["a"]), CLIENT_USAGES, "DNS subjectAltNames are not allowed"),
        (KUBELET, asked("system:node:a", NODES, ips=["1.2.3.4"]), CLIENT_USAGES, "IP subjectAltNames are not allowed"),
        (KUBELET, asked("system:node:a", NODES), ("client auth",),
         "usages did not match [client auth digital signature key encipherment]"),
        (SERVING, asked("system:node:a", NODES, dns=["a"], ips=["1.2.3.4"]), SERVING_USAGES, ""),
        (SERVING, asked("system:node:a", NODES), SERVING_USAGES, "DNS or IP subjectAltName is required"),
        (SERVING, asked("system:node:a", NODES, dns=["a"], emails=["a@b.c"]), SERVING_USAGES,
         "Email subjectAltNames are not allowed"),
        (SERVING, asked("system:node:a", NODES, dns=["a"], uris=["x:y"]), SERVING_USAGES,
         "URI subjectAltNames are not allowed"),
        (SERVING, asked("system:node:a", NODES, dns=["a"]), CLIENT_USAGES,
         "usages did not match [digital signature key encipherment server auth]"),
        (CLIENT, asked("anybody", ("any",)), ("client auth",), ""),
        (CLIENT, asked("anybody"), ("client auth", "server auth"),
         "invalid usages for client certificate: [client auth server auth]"),
    ],
)  # fmt: skip
def test_signers(signer: str, request_: Any, usages: tuple[str, ...], fault: str) -> None:
    assert SIGNERS[signer](request_, usages) == fault


def test_no_certificate_outlives_its_authority_or_signs_others(tmp_path: Path) -> None:
    CertificateAuthority.load_or_create(tmp_path)
    loaded = Signer.load(tmp_path)
    now = loaded.certificate.not_valid_after_utc - timedelta(days=10)
    pem = loaded.sign(asked("x", dns=["x"]), ("cert sign", "server auth"), None, now)
    certificate = x509.load_pem_x509_certificate(pem)
    assert certificate.not_valid_after_utc == loaded.certificate.not_valid_after_utc
    assert certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca is False
    assert certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    certificate.verify_directly_issued_by(loaded.certificate)
    for seconds, life in ((60, timedelta(minutes=10)), (10**9, timedelta(days=365) - timedelta(minutes=5))):
        early = loaded.certificate.not_valid_before_utc
        made = x509.load_pem_x509_certificate(loaded.sign(asked("x"), ("client auth",), seconds, early))
        assert abs(made.not_valid_after_utc - (early + life)) < timedelta(seconds=2)


@pytest.mark.parametrize(
    ("status", "age", "gone"),
    [
        ({}, 23, False),
        ({}, 25, True),
        ({"conditions": [{"type": "Denied", "lastUpdateTime": 0.9}]}, 2, False),
        ({"conditions": [{"type": "Denied", "lastUpdateTime": 1.1}]}, 2, True),
        ({"conditions": [{"type": "Failed", "lastUpdateTime": 1.1}]}, 2, True),
        ({"conditions": [{"type": "Approved", "lastUpdateTime": 2}]}, 3, False),
        ({"conditions": [{"type": "Approved", "lastUpdateTime": 2}], "certificate": "eA=="}, 3, True),
        ({"conditions": [{"type": "Approved", "lastUpdateTime": 0.5}], "certificate": "eA=="}, 3, False),
    ],
)
def test_which_requests_are_settled(status: Any, age: float, gone: bool) -> None:
    now = datetime(2026, 1, 2, tzinfo=UTC)

    def before(hours: float) -> str:
        return (now - timedelta(hours=hours)).isoformat(timespec="seconds").replace("+00:00", "Z")

    conditions = [{**c, "lastUpdateTime": before(c["lastUpdateTime"])} for c in status.get("conditions", ())]
    request = {
        "metadata": {"name": "x", "creationTimestamp": before(age)},
        "status": {**status, "conditions": conditions},
    }
    assert is_settled(request, now) is gone
