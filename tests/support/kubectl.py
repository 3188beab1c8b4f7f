"""The real kubectl against a test's API server."""

from __future__ import annotations

import asyncio
import json
import os
from dataclasses import dataclass
from pathlib import Path

from support.apiserver import Served
from support.cluster import kubectl_program

LIMIT = 60.0


@dataclass(frozen=True, slots=True)
class Result:
    code: int
    out: str
    err: str


class Kubectl:
    """Runs kubectl with its own home, so that no discovery cache is shared."""

    def __init__(self, api: Served, directory: Path) -> None:
        self.api = api
        self.directory = directory
        config = directory / "kubeconfig"
        cluster = {"server": api.url, "certificate-authority": str(api.authority.certificate_path)}
        user = {"client-certificate": str(api.admin.cert), "client-key": str(api.admin.key)}
        config.write_text(
            json.dumps(
                {
                    "apiVersion": "v1",
                    "kind": "Config",
                    "current-context": "test",
                    "clusters": [{"name": "test", "cluster": cluster}],
                    "users": [{"name": "test", "user": user}],
                    "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
                }
            )
        )
        self.environment = {**os.environ, "KUBECONFIG": str(config), "HOME": str(directory)}

    def write(self, name: str, text: str) -> str:
        path = self.directory / name
        path.write_text(text)
        return str(path)

    async def start(self, *arguments: str, **environment: str) -> asyncio.subprocess.Process:
        program = kubectl_program()
        assert program is not None, "needs kubectl"
        return await asyncio.create_subprocess_exec(
            program,
            *arguments,
            env={**self.environment, **environment},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )

    async def run(self, *arguments: str, **environment: str) -> Result:
        process = await self.start(*arguments, **environment)
        try:
            out, err = await asyncio.wait_for(process.communicate(), LIMIT)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        assert process.returncode is not None
        return Result(process.returncode, out.decode(), err.decode())

    async def __call__(self, *arguments: str, **environment: str) -> str:
        result = await self.run(*arguments, **environment)
        assert result.code == 0, result.err or result.out
        return result.out

    async def fails(self, *arguments: str) -> str:
        result = await self.run(*arguments)
        assert result.code != 0, result.out
        return result.err
