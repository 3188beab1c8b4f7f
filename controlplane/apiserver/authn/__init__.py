"""Authentication: who sends a request. One kind of credentials per module; `union` and `anonymous` put them together.

Called by the HTTP shell once per request, before the core. Authenticators know credentials, not requests. `build` makes
all of it from `settings`.
"""
