"""API aggregation: versions of API groups that another server serves, registered by APIService objects.

`registrations` knows them, `gateway` reaches their servers, `proxy` hands requests on, `availability` watches whether
they answer and what they serve, `identity` is who this server is to them; `Aggregation` is all of it for the rest.
"""

from controlplane.apiserver.aggregation.aggregation import Aggregation
from controlplane.apiserver.aggregation.identity import FrontProxy

__all__ = ["Aggregation", "FrontProxy"]
