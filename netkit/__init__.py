"""Machines, networks, proxies, path inspection and the command line."""

from typing import Final

VERSION: Final = "0.1.0"
"""Version of the toolkit itself."""

KUBERNETES_VERSION: Final = "v1.32.5"
"""Version of Kubernetes whose API and behaviour is served."""
