"""Authentication: who sends a request. One kind of credentials per module; `union` and `anonymous` put them together.

Called by the HTTP shell once per request, before the core. Authenticators know credentials, not requests.
"""

from controlplane.apiserver.authn.anonymous import Authentication
from controlplane.apiserver.authn.bearer import BearerTokens, bearer_token
from controlplane.apiserver.authn.certificates import CertificateAuthenticator, ClientAuthority
from controlplane.apiserver.authn.credentials import (
    AuthenticationError,
    Authenticator,
    Credentials,
    Identity,
    TokenAuthenticator,
)
from controlplane.apiserver.authn.impersonation import impersonate
from controlplane.apiserver.authn.token_file import TokenFileAuthenticator
from controlplane.apiserver.authn.union import FirstOf, FirstToken

__all__ = [
    "Authentication",
    "AuthenticationError",
    "Authenticator",
    "BearerTokens",
    "CertificateAuthenticator",
    "ClientAuthority",
    "Credentials",
    "FirstOf",
    "FirstToken",
    "Identity",
    "TokenAuthenticator",
    "TokenFileAuthenticator",
    "bearer_token",
    "impersonate",
]
