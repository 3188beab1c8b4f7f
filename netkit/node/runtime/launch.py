"""From a container's config to the kernel layer's values. Pure but for the path of the scratch directory."""

from __future__ import annotations

from collections.abc import Sequence

from netkit.kernel.container import Bind, Credentials, Isolation, Program
from netkit.kernel.netns_directory import NETNS_DIRECTORY
from netkit.node.runtime.settings import RuntimeSettings
from netkit.node.runtime.spec import ContainerConfig


def program(config: ContainerConfig, argv: Sequence[str], *, terminal: bool) -> Program:
    """What to execute: `argv` with the container's environment, directory and user."""
    env = dict(config.env)
    if terminal:
        env.setdefault("TERM", "xterm")
    security = config.security
    return Program(
        argv=tuple(argv),
        env=env,
        workdir=config.workdir or "/",
        credentials=Credentials(
            security.uid, security.gid, security.groups, frozenset(security.capabilities)
        ),
    )


def isolation(config: ContainerConfig, settings: RuntimeSettings) -> Isolation:
    """Where it runs: the pod's network, its own everything else."""
    hidden = (settings.state_dir, *settings.hidden)
    return Isolation(
        network=f"{NETNS_DIRECTORY}/{config.network}",
        hostname=config.hostname,
        scratch=str(settings.scratch),
        root=config.root,
        binds=tuple(Bind(bind.source, bind.target, bind.read_only) for bind in config.binds),
        masked=tuple(str(path) for path in hidden) if config.root == "/" else (),
        read_only=config.security.read_only_root,
    )
