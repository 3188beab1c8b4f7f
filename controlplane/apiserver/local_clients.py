"""Clients in the server's own process: of the controller manager, the scheduler, each controller, and the server."""

from __future__ import annotations

from controlplane.apiserver.app import ApiServer
from controlplane.apiserver.authz import AUTHENTICATED
from controlplane.apiserver.messages import ApiRequest
from controlplane.apiserver.user import LOOPBACK_USER, UserInfo
from controlplane.client.client import Client
from controlplane.client.components import Clients
from controlplane.client.local import LocalTransport

CONTROLLER_MANAGER = UserInfo("system:kube-controller-manager", groups=(AUTHENTICATED,))
SCHEDULER = UserInfo("system:kube-scheduler", groups=(AUTHENTICATED,))
_ACCOUNTS = "system:serviceaccount:kube-system"
_ACCOUNT_GROUPS = ("system:serviceaccounts", "system:serviceaccounts:kube-system", AUTHENTICATED)


def component_clients(server: ApiServer) -> Clients:
    """Clients in this process for the controller manager, the scheduler, and each controller as itself."""

    def controller(name: str) -> Client:
        user = UserInfo(f"{_ACCOUNTS}:{name}", groups=_ACCOUNT_GROUPS)
        return Client(local_transport(server, user), f"kube-controller-manager/{name}")

    return Clients(
        Client(local_transport(server, CONTROLLER_MANAGER), "kube-controller-manager"),
        Client(local_transport(server, SCHEDULER), "kube-scheduler"),
        Client(local_transport(server, LOOPBACK_USER), "kube-apiserver"),
        controller,
    )


def local_transport(server: ApiServer, user: UserInfo) -> LocalTransport:
    """A transport for a client in this process that speaks as `user`."""
    return LocalTransport(server.handle, user, ApiRequest)
