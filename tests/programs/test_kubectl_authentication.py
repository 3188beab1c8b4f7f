"""The real kubectl as all sorts of users: who it is, tokens, acting as others, certificates."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import jwt
import pytest
from support.apiserver import GUEST_TOKEN, TOKEN, Served, cluster
from support.client_wait import running
from support.cluster import needs_kubectl
from support.issuer import Webhook, issuer, kubeconfig, tls_server
from support.kubectl import Kubectl

from controlplane.apiserver.authn.settings import AuthenticationSettings, OidcSettings, WebhookTokenSettings
from controlplane.apiserver.local_clients import local_transport
from controlplane.apiserver.user import UserInfo
from controlplane.client.client import Client
from controlplane.client.informer import Informers
from controlplane.controllers.certificates.issuing import Signer
from controlplane.controllers.certificates.signing_controller import CertificateSigningController

pytestmark = pytest.mark.kubectl

ISSUER = "https://kubernetes.default.svc.cluster.local"


def with_token(kubectl: Kubectl, token: str) -> Kubectl:
    """The same server, as the owner of a token instead of the administrator."""
    directory = kubectl.directory / f"user-{abs(hash(token))}"
    directory.mkdir()
    other = Kubectl(kubectl.api, directory)
    file = directory / "kubeconfig"
    config = json.loads(file.read_text())
    config["users"][0]["user"] = {"token": token}
    file.write_text(json.dumps(config))
    return other


async def openssl(directory: Path, *arguments: str) -> None:
    process = await asyncio.create_subprocess_exec(
        "openssl", *arguments, cwd=directory, stderr=asyncio.subprocess.PIPE
    )
    _, err = await process.communicate()
    assert process.returncode == 0, err.decode()


@needs_kubectl(28)
async def test_whoami(kubectl: Kubectl) -> None:
    told = await kubectl("auth", "whoami")
    lines = {line.split("  ")[0].strip(): line.split("  ")[-1].strip() for line in told.splitlines()}
    assert lines["Username"] == "kubernetes-admin"
    assert lines["Groups"] == "[system:masters system:authenticated]"
    assert lines["Extra: authentication.kubernetes.io/credential-id"].startswith("[X509SHA256=")
    guest = with_token(kubectl, GUEST_TOKEN)
    review = json.loads(await guest("auth", "whoami", "-o", "json"))
    assert (review["kind"], review["status"]["userInfo"]["username"]) == ("SelfSubjectReview", "bob")
    refused = await with_token(kubectl, "wrong").fails("get", "pods")
    assert "You must be logged in to the server" in refused


@needs_kubectl(28)
async def test_acting_as_others(kubectl: Kubectl) -> None:
    review = json.loads(
        await kubectl(
            "auth",
            "whoami",
            "-o",
            "json",
            "--as",
            "alice",
            "--as-group",
            "dev",
            "--as-group",
            "ops",
            "--as-uid",
            "7",
        )
    )
    assert review["status"]["userInfo"] == {
        "username": "alice", "uid": "7", "groups": ["dev", "ops", "system:authenticated"],
    }  # fmt: skip
    account = await kubectl("auth", "whoami", "--as", "system:serviceaccount:default:robot")
    assert "[system:serviceaccounts system:serviceaccounts:default system:authenticated]" in account
    guest = with_token(kubectl, GUEST_TOKEN)
    for arguments, told in (
        (("--as", "root"), 'users "root" is forbidden: User "bob" cannot impersonate resource "users"'),
        (("--as", "system:serviceaccount:kube-system:x"),
         'serviceaccounts "x" is forbidden: User "bob" cannot impersonate resource "serviceaccounts"'),
    ):  # fmt: skip
        assert told in await guest.fails("create", "token", "x", *arguments)


@needs_kubectl(27)
async def test_tokens(kubectl: Kubectl, api: Served) -> None:
    await kubectl("create", "serviceaccount", "robot")
    token = (await kubectl("create", "token", "robot")).strip()
    claims = jwt.decode(token, options={"verify_signature": False})
    assert (claims["aud"], claims["exp"] - claims["iat"]) == ([ISSUER], 3600)
    robot = with_token(kubectl, token)
    assert 'User "system:serviceaccount:default:robot" cannot list' in await robot.fails("get", "pods")

    more = await kubectl(
        "create", "token", "robot", "--duration", "20m", "--audience", "vault", "--audience", "other", "-o", "json"
    )  # fmt: skip
    request = json.loads(more)
    claims = jwt.decode(request["status"]["token"], options={"verify_signature": False})
    assert (claims["aud"], claims["exp"] - claims["iat"]) == (["vault", "other"], 1200)
    refused = await with_token(kubectl, request["status"]["token"]).fails("get", "pods")
    assert "You must be logged in to the server" in refused

    await kubectl("create", "secret", "generic", "held")
    secret = json.loads(await kubectl("get", "secret", "held", "-o", "json"))
    bound = (
        await kubectl(
            "create",
            "token",
            "robot",
            "--bound-object-kind",
            "Secret",
            "--bound-object-name",
            "held",
            "--bound-object-uid",
            secret["metadata"]["uid"],
        )
    ).strip()
    claims = jwt.decode(bound, options={"verify_signature": False})
    assert claims["kubernetes.io"]["secret"] == {"name": "held", "uid": secret["metadata"]["uid"]}
    holder = with_token(kubectl, bound)
    assert "Forbidden" in await holder.fails("get", "pods")
    await kubectl("delete", "secret", "held")
    assert "You must be logged in to the server" in await holder.fails("get", "pods")
    assert "may not specify a duration less than 10 minutes" in await kubectl.fails(
        "create", "token", "robot", "--duration", "5m"
    )
    assert 'serviceaccounts "none" not found' in await kubectl.fails("create", "token", "none")


@needs_kubectl(31)
async def test_a_certificate_from_openssl(kubectl: Kubectl, api: Served, tmp_path: Path) -> None:
    await openssl(tmp_path, "req", "-new", "-newkey", "rsa:2048", "-nodes", "-keyout", "jane.key", "-out", "jane.csr",
                  "-subj", "/O=dev/O=ops/CN=jane")  # fmt: skip
    request = base64.b64encode((tmp_path / "jane.csr").read_bytes()).decode()
    manifest = f"""
apiVersion: certificates.k8s.io/v1
kind: CertificateSigningRequest
metadata: {{name: jane}}
spec:
  request: {request}
  signerName: kubernetes.io/kube-apiserver-client
  expirationSeconds: 86400
  usages: [client auth]
"""
    file = kubectl.write("csr.yaml", manifest)
    client = Client(local_transport(api.server, UserInfo("controller", groups=("system:masters",))))
    informers = Informers(client)
    signing = CertificateSigningController(client, informers, Signer.load(tmp_path / "pki"))
    async with running(informers.run(), signing.run()):
        assert "created" in await kubectl("create", "-f", file)
        row = (await kubectl("get", "csr", "jane", "--no-headers")).split()
        assert row[2:] == ["kubernetes.io/kube-apiserver-client", "kubernetes-admin", "24h", "Pending"]
        approved = await kubectl("certificate", "approve", "jane")
        assert approved == "certificatesigningrequest.certificates.k8s.io/jane approved\n"
        await kubectl("wait", "--for=jsonpath={.status.certificate}", "csr/jane", "--timeout=20s")
        assert (await kubectl("get", "csr", "jane", "--no-headers")).split()[-1] == "Approved,Issued"
        kubectl.write("two.yaml", manifest.replace("name: jane", "name: two"))
        await kubectl("create", "-f", str(kubectl.directory / "two.yaml"))
        await kubectl("certificate", "deny", "two")
        assert (await kubectl("get", "csr", "two", "--no-headers")).split()[-1] == "Denied"
        described = await kubectl("describe", "csr", "jane")
        assert "Approved,Issued" in described
    pem = await kubectl("get", "csr", "jane", "-o", "jsonpath={.status.certificate}")
    (tmp_path / "jane.crt").write_bytes(base64.b64decode(pem))
    who = await kubectl(
        "--client-certificate", str(tmp_path / "jane.crt"), "--client-key", str(tmp_path / "jane.key"),
        "auth", "whoami", "-o", "jsonpath={.status.userInfo.username} {.status.userInfo.groups}",
    )  # fmt: skip
    assert who == 'jane ["dev","ops","system:authenticated"]'


@pytest.fixture
async def federated(tmp_path: Path) -> AsyncIterator[tuple[Kubectl, Any, Webhook]]:
    """kubectl and a server that knows an issuer and a webhook."""

    def known(token: str, audiences: list[str]) -> Any:
        if token != "hooked":
            return {"authenticated": False}
        return {"authenticated": True, "user": {"username": "hank", "groups": ["hooks"]}}

    hook = Webhook(known)
    for name in ("issuer", "hook"):
        (tmp_path / name).mkdir()
    async with issuer(tmp_path / "issuer") as made, tls_server(tmp_path / "hook", hook.answer) as (url, ca):
        settings = AuthenticationSettings(
            oidc=OidcSettings(
                issuer_url=made.url,
                client_id="netkit",
                ca_file=made.ca,
                username_prefix="-",
                groups_claim="groups",
            ),
            webhook=WebhookTokenSettings(config_file=kubeconfig(tmp_path / "hook.yaml", url, ca)),
        )
        async with cluster(tmp_path, authentication=settings) as api:
            yield Kubectl(api, tmp_path), made, hook


@needs_kubectl(28)
async def test_users_from_elsewhere(federated: tuple[Kubectl, Any, Webhook]) -> None:
    kubectl, made, hook = federated
    jane = with_token(kubectl, made.token(groups=["system:masters"]))
    assert "jane" in await jane("auth", "whoami")
    assert "kubernetes" in await jane("get", "services")
    hank = with_token(kubectl, "hooked")
    assert "[hooks system:authenticated]" in await hank("auth", "whoami")
    assert 'User "hank" cannot list' in await hank.fails("get", "pods")
    expired = with_token(kubectl, made.token(exp=1))
    assert "You must be logged in to the server" in await expired.fails("get", "pods")
    assert {review["spec"]["token"] for _, review in hook.asked} >= {"hooked"}
    assert TOKEN not in {review["spec"]["token"] for _, review in hook.asked}
