"""kubectl's generators, whose bodies are protobuf from 1.32 on: each makes what it would have sent as JSON."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any

import pytest
from support.apiserver import Served
from support.cluster import needs_kubectl
from support.kubectl import Kubectl

from controlplane.apiserver.core import Core
from controlplane.apiserver.messages import ApiRequest, ApiResponse
from controlplane.errors import Object
from controlplane.schema import protobuf

pytestmark = [pytest.mark.kubectl, needs_kubectl(32)]

BINARY = b"\xff\xfe\0"


@pytest.fixture
def bodies(monkeypatch: pytest.MonkeyPatch) -> list[bytes]:
    """The protobuf bodies the server was sent."""
    sent: list[bytes] = []
    handle = Core.handle

    async def listening(core: Core, request: ApiRequest) -> ApiResponse:
        if request.headers.get("content-type") == protobuf.CONTENT_TYPE:
            sent.append(request.body)
        return await handle(core, request)

    monkeypatch.setattr(Core, "handle", listening)
    return sent


@pytest.fixture
def files(api: Served, tmp_path: Path) -> dict[str, str]:
    """Paths by the names the commands have for them."""
    (tmp_path / "binary").write_bytes(BINARY)
    (tmp_path / "text").write_text("hello\n")
    (tmp_path / "vars").write_text("A=1\nB=\n")
    return {
        "binary": str(tmp_path / "binary"),
        "text": str(tmp_path / "text"),
        "vars": str(tmp_path / "vars"),
        "cert": str(api.admin.cert),
        "key": str(api.admin.key),
    }


def stated(value: Any) -> Any:
    """JSON as Go prints it, without nulls and empty structs."""
    if isinstance(value, dict):
        inner = {key: stated(found) for key, found in value.items()}
        return {key: found for key, found in inner.items() if found is not None and found != {}}
    return [stated(found) for found in value] if isinstance(value, list) else value


GENERATORS = [
    "deployment web --image=nginx --replicas=0",
    "deployment web --image=nginx --image=busybox --replicas=3",
    "deployment web --image=nginx --port=80 -- sleep 60",
    "configmap settings --from-literal=a=1 --from-literal=empty=",
    "configmap settings --from-file={binary} --from-file=renamed={text}",
    "configmap settings --from-env-file={vars}",
    "secret generic pass --from-literal=a=1 --from-file={binary} --type=example.com/pass",
    "secret docker-registry pull --docker-server=r --docker-username=u --docker-password=p",
    "secret tls cert --cert={cert} --key={key}",
    "namespace lab",
    "service clusterip web --tcp=80:8080 --tcp=443",
    "service clusterip web --clusterip=None",
    "service nodeport web --tcp=80:http --node-port=30080",
    "service loadbalancer web --tcp=80",
    "service externalname web --external-name=example.com",
    "serviceaccount bot",
    "job work --image=busybox -- sh -c true",
    "cronjob tick --image=busybox --schedule=@hourly --restart=OnFailure -- date",
    "quota room --hard=pods=5,requests.cpu=1,count/jobs.batch=3 --scopes=NotTerminating",
    "poddisruptionbudget keep --selector=app=web --min-available=50%",
    "poddisruptionbudget spare --selector=app=web --max-unavailable=1",
]


@pytest.mark.parametrize("command", GENERATORS)
async def test_generators(kubectl: Kubectl, files: dict[str, str], bodies: list[bytes], command: str) -> None:
    arguments = ["create", *command.format(**files).split()]
    # A command of the container comes last, behind the options.
    end = arguments.index("--") if "--" in arguments else len(arguments)
    plain = [*arguments[:end], "--dry-run=client", "-o", "json", *arguments[end:]]
    wanted = stated(json.loads(await kubectl(*plain)))
    assert bodies == []
    assert (await kubectl(*arguments)).endswith(" created\n")
    assert stated(protobuf.decode(*bodies)) == wanted
    kind, name = wanted["kind"], wanted["metadata"]["name"]
    made = json.loads(await kubectl("get", kind, name, "-o", "json"))
    assert includes(made, wanted), made
    assert re.search("already (exists|allocated)", await kubectl.fails(*arguments))


def includes(made: Any, wanted: Any) -> bool:
    """Whether `made` says all that `wanted` does; the server's defaults may come on top."""
    if isinstance(wanted, dict):
        return isinstance(made, dict) and all(includes(made.get(key), wanted[key]) for key in wanted)
    if isinstance(wanted, list):
        return isinstance(made, list) and len(made) == len(wanted) and all(map(includes, made, wanted))
    return type(made) is type(wanted) and bool(made == wanted)


async def test_what_is_stored(kubectl: Kubectl, files: dict[str, str]) -> None:
    async def get(*what: str) -> Object:
        found: Object = json.loads(await kubectl("get", *what, "-o", "json"))
        return found

    await kubectl("create", "deployment", "web", "--image=nginx", "--replicas=0")
    assert (await get("deployment", "web"))["spec"]["replicas"] == 0
    await kubectl("create", "configmap", "m", f"--from-file={files['binary']}", "--from-literal=e=")
    found = await get("configmap", "m")
    assert (found["data"], found["binaryData"]) == ({"e": ""}, {"binary": base64.b64encode(BINARY).decode()})
    await kubectl("create", "service", "nodeport", "web", "--tcp=80", "--node-port=30081")
    service = (await get("service", "web"))["spec"]
    assert (service["ports"][0]["nodePort"], service["ports"][0]["targetPort"]) == (30081, 80)
    assert service["clusterIP"].startswith("10.96.")


async def test_dry_runs_and_mistakes(kubectl: Kubectl) -> None:
    dry = await kubectl(
        "create", "deployment", "web", "--image=nginx", "--replicas=0", "--dry-run=server", "-o", "yaml"
    )
    assert "\n  replicas: 0\n" in dry
    assert (await kubectl("get", "deployments", "-o", "name")) == ""
    error = await kubectl.fails("create", "namespace", "Not_A_Name")
    assert 'The Namespace "Not_A_Name" is invalid: metadata.name: Invalid value: "Not_A_Name"' in error
    error = await kubectl.fails("create", "service", "nodeport", "web", "--tcp=80", "--node-port=1")
    assert 'Service "web" is invalid: spec.ports[0].nodePort: Invalid value: 1' in error
    assert 'namespaces "none" not found' in await kubectl.fails("create", "sa", "bot", "-n", "none")
