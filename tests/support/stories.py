"""Stories: sequences of kubectl commands with what each must print, kept as YAML in tests/programs/stories.

    story: one sentence
    needs: 27                     # the oldest kubectl's minor version; left out = any
    kubectls: [20, 33]            # further kubectls' minor versions to run it with, `all`: every one there is
    files: {web.yaml: |...}       # written into the directory the commands run in
    steps:
    - run: get pods -o wide       # arguments of kubectl, split as a shell does
      code: 0                     # exit code
      out: exact standard output  # `{any}` stands for any text of one line, `{age}` for 5s, 2m3s, ...
      err: exact standard error
      has: [texts in the output]  # also not: [...], err_has: [...]
      words: [[NAME, READY], ...] # the output as rows of words; `*` is any word
      eventually: true            # run it again until it fits
      stdin: text   env: {KUBE_EDITOR: ...}
      needs: 30   before: 33      # only kubectls from 1.30 on, and older than 1.33

What is not said is not checked, but the exit code always is. Commands run one after another, in a fresh cluster per
story with two nodes; `test_stories.py` sees to that.
"""

from __future__ import annotations

import asyncio
import functools
import os
import re
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

LIMIT = 60.0
EVENTUALLY = 30.0
_PLACEHOLDERS = {"{any}": r"[^\n]*", "{age}": r"\d+[smhdy](?:\d+[smhd])?", "{lines}": r"[\s\S]*"}


@dataclass(frozen=True, slots=True)
class Step:
    run: str
    code: int = 0
    out: str | None = None
    err: str | None = None
    has: Sequence[str] = ()
    absent: Sequence[str] = ()
    err_has: Sequence[str] = ()
    words: Sequence[Sequence[str]] | None = None
    eventually: bool = False
    stdin: str | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    needs: int = 0
    before: int = 1000


@dataclass(frozen=True, slots=True)
class Story:
    """`kubectls`: None stands for all."""

    name: str
    sentence: str
    needs: int
    kubectls: Sequence[int] | None
    files: Mapping[str, str]
    steps: Sequence[Step]


@dataclass(frozen=True, slots=True)
class Outcome:
    code: int
    out: str
    err: str


@functools.cache
def load(path: Path) -> Story:
    document = yaml.safe_load(path.read_text(encoding="utf-8"))
    unknown = document.keys() - {"story", "needs", "kubectls", "files", "steps"}
    assert not unknown, f"{path.name}: unknown {unknown}"
    steps = [_step(step, f"{path.name}: step {number}") for number, step in enumerate(document["steps"], 1)]
    kubectls = document.get("kubectls", [])
    return Story(
        path.stem,
        document["story"],
        document.get("needs", 0),
        None if kubectls == "all" else kubectls,
        document.get("files") or {},
        steps,
    )


def _step(document: dict[str, Any], where: str) -> Step:
    known = {
        "run",
        "code",
        "out",
        "err",
        "has",
        "not",
        "err_has",
        "words",
        "eventually",
        "stdin",
        "env",
        "needs",
        "before",
    }
    unknown = document.keys() - known
    assert not unknown, f"{where}: unknown {unknown}"
    values = dict(document)
    values["absent"] = _texts(values.pop("not", ()))
    for key in ("has", "err_has"):
        values[key] = _texts(values.get(key, ()))
    if values.get("words") is not None:
        values["words"] = [line.split() if isinstance(line, str) else line for line in values["words"]]
    return Step(**values)


def _texts(value: Any) -> list[str]:
    return [value] if isinstance(value, str) else [str(text) for text in value]


class Narrator:
    """Runs one story with one kubectl."""

    def __init__(self, program: str, minor: int, directory: Path, environment: Mapping[str, str]) -> None:
        self._program = program
        self._minor = minor
        self._directory = directory
        # Short programs need no garbage collection: a quarter of their time.
        self._environment = {**os.environ, "GOGC": "off", **environment}

    async def tell(self, story: Story) -> None:
        for name, text in story.files.items():
            path = self._directory / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        for number, step in enumerate(story.steps, 1):
            if not step.needs <= self._minor < step.before:
                continue
            await self._take(story, number, step)

    async def _take(self, story: Story, number: int, step: Step) -> None:
        end = asyncio.get_running_loop().time() + EVENTUALLY
        while True:
            outcome = await self._run(step)
            fault = difference(step, outcome)
            if not fault:
                return
            if not step.eventually or asyncio.get_running_loop().time() > end:
                raise AssertionError(
                    f"{story.name}, step {number}: kubectl {step.run}\n{fault}\n"
                    f"-- exit code {outcome.code}\n-- out\n{outcome.out}\n-- err\n{outcome.err}"
                )
            await asyncio.sleep(0.1)

    async def _run(self, step: Step) -> Outcome:
        process = await asyncio.create_subprocess_exec(
            self._program,
            *shlex.split(step.run),
            cwd=self._directory,
            env={**self._environment, **step.env},
            stdin=asyncio.subprocess.PIPE if step.stdin is not None else asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        try:
            given = step.stdin.encode() if step.stdin is not None else None
            out, err = await asyncio.wait_for(process.communicate(given), LIMIT)
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
        assert process.returncode is not None
        return Outcome(process.returncode, out.decode(), err.decode())


def difference(step: Step, outcome: Outcome) -> str:
    """What does not fit, empty when everything does."""
    if outcome.code != step.code:
        return f"exit code {outcome.code}, expected {step.code}"
    for label, wanted, found in (("output", step.out, outcome.out), ("error output", step.err, outcome.err)):
        if wanted is not None and not re.fullmatch(_pattern(wanted.strip()), found.strip()):
            return f"{label} is not\n{wanted.strip()}"
    for text in step.has:
        if text not in outcome.out:
            return f"output lacks {text!r}"
    for text in step.absent:
        if text in outcome.out:
            return f"output has {text!r}"
    for text in step.err_has:
        if text not in outcome.err:
            return f"error output lacks {text!r}"
    return _rows(step.words, outcome.out) if step.words is not None else ""


def _pattern(text: str) -> str:
    pattern = re.escape(text)
    for placeholder, expression in _PLACEHOLDERS.items():
        pattern = pattern.replace(re.escape(placeholder), expression)
    return pattern


def _rows(wanted: Sequence[Sequence[str]], out: str) -> str:
    found = [line.split() for line in out.splitlines() if line.strip()]
    if len(found) != len(wanted):
        return f"{len(found)} lines, expected {len(wanted)}"
    for expected, row in zip(wanted, found, strict=True):
        if len(expected) != len(row) or any(
            not re.fullmatch(_pattern(str(word)).replace(r"\*", r"\S+"), cell)
            for word, cell in zip(expected, row, strict=True)
        ):
            return f"row {row} is not {list(expected)}"
    return ""
