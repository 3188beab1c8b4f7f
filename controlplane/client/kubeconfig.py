"""Reading and writing kubeconfig files: the contexts kubectl uses.

Called by the command line and by every part that joins a cluster. Writing keeps all other entries of the
file, takes the same lock file as kubectl and replaces the file in one step, so that no reader sees half of
it.
"""

from __future__ import annotations

import base64
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

if TYPE_CHECKING:
    from controlplane.client.https import HttpsTransport, SocketFactory

_LOCK_SECONDS = 5.0
SERVICE_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
"""Where a pod finds its token and the authority of the API server."""


class KubeconfigError(Exception):
    """The file cannot be read, lacks what is asked for, or is locked."""


@dataclass(frozen=True, slots=True)
class Credentials:
    """All a client needs to reach one cluster as one user. PEM texts; empty strings for what is not used.

    Without `ca` the server is one the machine trusts anyway, with `insecure` it is not looked at.
    """

    server: str
    ca: str
    certificate: str = ""
    key: str = ""
    token: str = ""
    namespace: str = "default"
    token_file: str = ""
    insecure: bool = False

    def transport(self, socket_factory: SocketFactory | None = None) -> HttpsTransport:
        """A transport with these credentials."""
        # Commands that only edit the file shall not wait for an HTTP client to load.
        from controlplane.client.https import HttpsTransport

        return HttpsTransport(
            self.server,
            ca=self.ca,
            certificate=self.certificate or None,
            key=self.key or None,
            token=self.token,
            token_file=Path(self.token_file) if self.token_file else None,
            insecure=self.insecure,
            socket_factory=socket_factory,
        )


def default_path() -> Path:
    """Where kubectl writes: the first file of $KUBECONFIG, else ~/.kube/config."""
    listed = [part for part in os.environ.get("KUBECONFIG", "").split(os.pathsep) if part]
    return Path(listed[0]) if listed else Path.home() / ".kube" / "config"


def load(path: Path, context: str = "") -> Credentials:
    """The credentials of a context, or of the current one. Raises KubeconfigError."""
    config = _read(path)
    context = context or config.get("current-context") or ""
    chosen = _named(config, "contexts", "context", context, path)
    cluster = _named(config, "clusters", "cluster", chosen.get("cluster", ""), path)
    user = _named(config, "users", "user", chosen.get("user", ""), path)
    if "exec" in user or "auth-provider" in user:
        raise KubeconfigError(
            f"{path}: user {chosen.get('user')} gets its credentials from a program, which is not supported here"
        )
    token_file = user.get("tokenFile") or ""
    return Credentials(
        server=cluster.get("server", ""),
        ca=_material(cluster, "certificate-authority", path),
        certificate=_material(user, "client-certificate", path),
        key=_material(user, "client-key", path),
        # A file with a token counts before a token, as for kubectl.
        token="" if token_file else user.get("token", ""),
        namespace=chosen.get("namespace") or "default",
        token_file=str(path.parent / token_file) if token_file else "",
        insecure=bool(cluster.get("insecure-skip-tls-verify")),
    )


def in_cluster() -> Credentials:
    """The credentials a pod finds inside itself: its ServiceAccount's. Raises KubeconfigError outside of a pod."""
    host, port = os.environ.get("KUBERNETES_SERVICE_HOST"), os.environ.get("KUBERNETES_SERVICE_PORT")
    if not host or not port:
        raise KubeconfigError(
            "unable to load in-cluster configuration,"
            " KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT must be defined"
        )
    token = SERVICE_ACCOUNT / "token"
    try:
        ca = (SERVICE_ACCOUNT / "ca.crt").read_text()
        token.read_text()
    except OSError as error:
        raise KubeconfigError(f"unable to load in-cluster configuration: {error}") from None
    server = f"https://[{host}]:{port}" if ":" in host else f"https://{host}:{port}"
    return Credentials(server, ca, token_file=str(token))


def write_context(path: Path, name: str, credentials: Credentials, *, current: bool = True) -> None:
    """Set cluster, user and context `name`, and with `current` make it the current context.

    Raises KubeconfigError, OSError.
    """
    with _locked(path):
        config = _read(path) if path.exists() else {}
        config.setdefault("apiVersion", "v1")
        config.setdefault("kind", "Config")
        cluster = {"server": credentials.server, "certificate-authority-data": _encoded(credentials.ca)}
        user: dict[str, Any] = {}
        if credentials.certificate:
            user["client-certificate-data"] = _encoded(credentials.certificate)
            user["client-key-data"] = _encoded(credentials.key)
        if credentials.token:
            user["token"] = credentials.token
        context = {"cluster": name, "user": name}
        if credentials.namespace != "default":
            context["namespace"] = credentials.namespace
        _set(config, "clusters", "cluster", name, cluster)
        _set(config, "users", "user", name, user)
        _set(config, "contexts", "context", name, context)
        if current or not config.get("current-context"):
            config["current-context"] = name
        _write(path, config)


def remove_context(path: Path, name: str) -> bool:
    """Take cluster, user and context `name` out again; returns whether anything was there.

    A current context of that name becomes empty.
    """
    if not path.exists():
        return False
    with _locked(path):
        config = _read(path)
        found = False
        for section in ("clusters", "users", "contexts"):
            entries = config.get(section) or []
            kept = [entry for entry in entries if entry.get("name") != name]
            if len(kept) != len(entries):
                found = True
                config[section] = kept
        if config.get("current-context") == name:
            config["current-context"] = ""
            found = True
        if found:
            _write(path, config)
        return found


def current_context(path: Path) -> str:
    """The file's current context, empty when it names none. Raises KubeconfigError."""
    return str(_read(path).get("current-context") or "")


def use_context(path: Path, name: str) -> None:
    """Make `name` the current context if the file has it. Raises KubeconfigError, OSError."""
    with _locked(path):
        config = _read(path)
        if any(entry.get("name") == name for entry in config.get("contexts") or ()):
            config["current-context"] = name
            _write(path, config)


def is_empty(path: Path) -> bool:
    """Whether the file names no cluster, user or context at all. Raises KubeconfigError."""
    config = _read(path)
    return not any(config.get(section) for section in ("clusters", "users", "contexts"))


def _read(path: Path) -> dict[str, Any]:
    try:
        parsed = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise KubeconfigError(f"{path}: no such kubeconfig file") from None
    except (OSError, yaml.YAMLError) as error:
        raise KubeconfigError(f"{path}: not a readable kubeconfig: {error}") from error
    if parsed is None:
        return {}
    if not isinstance(parsed, dict):
        raise KubeconfigError(f"{path}: not a kubeconfig: a mapping is expected")
    return parsed


def _named(config: dict[str, Any], section: str, key: str, name: str, path: Path) -> dict[str, Any]:
    for entry in config.get(section) or ():
        if entry.get("name") == name:
            found: dict[str, Any] = entry.get(key) or {}
            return found
    raise KubeconfigError(f'{path}: no {key} named "{name}"')


def _material(entry: dict[str, Any], key: str, path: Path) -> str:
    """Inline data, or the text of the file it names (relative to the kubeconfig)."""
    data = entry.get(f"{key}-data")
    if data:
        return base64.b64decode(data).decode()
    named = entry.get(key)
    if not named:
        return ""
    try:
        return (path.parent / str(named)).read_text()
    except OSError as error:
        raise KubeconfigError(f"{path}: {key}: {error}") from error


def _encoded(text: str) -> str:
    return base64.b64encode(text.encode()).decode()


def _set(config: dict[str, Any], section: str, key: str, name: str, value: dict[str, Any]) -> None:
    entries = config.get(section) or []
    for entry in entries:
        if entry.get("name") == name:
            entry[key] = value
            break
    else:
        entries.append({"name": name, key: value})
    config[section] = entries


def _write(path: Path, config: dict[str, Any]) -> None:
    """Replace the file in one step, readable by its owner only; a link stays a link."""
    target = path.resolve()
    fd, temporary = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
    try:
        with os.fdopen(fd, "w") as file:
            yaml.safe_dump(config, file, sort_keys=False, default_flow_style=False)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).replace(target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold kubectl's lock on the file: a neighbour named `.lock` that must not exist yet."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o750)
    lock = path.with_name(path.name + ".lock")
    deadline = time.monotonic() + _LOCK_SECONDS
    while True:
        try:
            os.close(os.open(lock, os.O_CREAT | os.O_EXCL, 0o600))
            break
        except FileExistsError:
            if time.monotonic() > deadline:
                raise KubeconfigError(
                    f"{lock} exists: another program writes the kubeconfig, or died doing so (then remove it)"
                ) from None
            time.sleep(0.05)
    try:
        yield
    finally:
        lock.unlink(missing_ok=True)
