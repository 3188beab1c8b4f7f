"""Static bearer tokens from a CSV file, as `kube-apiserver --token-auth-file` takes it."""

from __future__ import annotations

import csv
import hashlib
import io
from pathlib import Path

from controlplane.apiserver.authn.credentials import Identity, shared
from controlplane.apiserver.user import UserInfo


class TokenFileAuthenticator:
    """Lines of `token,user,uid,"group1,group2"`; the file is read once.

    Raises ValueError for a line with fewer than three columns, OSError when the file cannot be read.
    """

    def __init__(self, path: Path, api_audiences: tuple[str, ...] = ()) -> None:
        self._api_audiences = api_audiences
        self._users: dict[bytes, UserInfo] = {}
        reader = csv.reader(io.StringIO(path.read_text(encoding="utf-8")), skipinitialspace=True, strict=True)
        try:
            for row in reader:
                self._take(row, f"{path}:{reader.line_num}")
        except csv.Error as error:
            raise ValueError(f"{path}:{reader.line_num}: {error}") from error

    def _take(self, row: list[str], where: str) -> None:
        if not any(row) or row[0].startswith("#"):
            return
        if len(row) < 3:
            raise ValueError(f"{where}: expected token,user,uid[,groups]")
        token, name, uid, *rest = (column.strip() for column in row)
        if not token or not name:
            raise ValueError(f"{where}: the token and the user may not be empty")
        groups = tuple(group.strip() for group in rest[0].split(",") if group.strip()) if rest else ()
        self._users[_digest(token)] = UserInfo(name, uid, groups)

    async def authenticate(self, token: str, audiences: tuple[str, ...]) -> Identity | None:
        # Found by its digest: how long that takes says nothing about the tokens.
        user = self._users.get(_digest(token))
        if user is None:
            return None
        meant = shared(audiences, self._api_audiences)
        return None if self._api_audiences and not meant else Identity(user, meant)


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).digest()
