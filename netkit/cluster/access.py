"""How the toolkit's own commands reach a cluster's API: as its administrator, over HTTPS on the loopback."""

from __future__ import annotations

from controlplane.client.client import Client
from controlplane.client.https import HttpsTransport
from netkit import VERSION
from netkit.cluster.errors import ClusterError
from netkit.cluster.profile import Profile

ADMIN_STEM = "admin"


def admin_client(profile: Profile, server: str) -> Client:
    """A client of `server` (`https://127.0.0.1:PORT`). Raises ClusterError when the certificates cannot be read."""
    try:
        transport = HttpsTransport(
            server,
            ca=profile.pki / "ca.crt",
            certificate=profile.pki / f"{ADMIN_STEM}.crt",
            key=profile.pki / f"{ADMIN_STEM}.key",
        )
    except PermissionError:
        raise ClusterError(
            f"the certificates of cluster {profile.name} cannot be read by this user", "run it with sudo"
        ) from None
    return Client(transport, f"netkit/{VERSION}")
