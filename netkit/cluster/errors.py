"""What `up`, `down` and their relatives refuse, each with one line and a hint.

ClusterError
|-- ConfigError      the configuration file or an option is wrong
|-- ClusterExists    a cluster of that name is there already
|-- NoSuchCluster    there is none of that name
`-- StartError       a part did not come up
"""

from __future__ import annotations


class ClusterError(Exception):
    """A mistake or a failure the user can act on. `hint` says how, or is empty."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class ConfigError(ClusterError):
    pass


class ClusterExists(ClusterError):
    pass


class NoSuchCluster(ClusterError):
    pass


class StartError(ClusterError):
    pass
