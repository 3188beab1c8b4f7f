"""containerLogs of the kubelet API: which log, from what query, with kubelet's refusals."""

from __future__ import annotations

import time
from datetime import UTC, datetime

from aiohttp import web

from controlplane.meta import timestamps
from netkit.node.kubelet.refusal import Refusal
from netkit.node.lifecycle.records import Record, View
from netkit.node.log_reader import LogOptions, read_log
from netkit.node.worker import PodWorker

_IMAGE_WORDS = {
    "ErrImagePull": "image can't be pulled",
    "ImagePullBackOff": "trying and failing to pull image",
}


def options(query: dict[str, str]) -> LogOptions:
    """PodLogOptions of a query. Raises Refusal."""
    since = ""
    if query.get("sinceTime"):
        try:
            since = timestamps.parse(query["sinceTime"]).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        except ValueError as error:
            raise Refusal(400, str(error)) from error
    seconds = _number(query, "sinceSeconds")
    if seconds is not None:
        since = datetime.fromtimestamp(time.time() - seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
    return LogOptions(
        follow=_flag(query, "follow"),
        timestamps=_flag(query, "timestamps"),
        tail_lines=_number(query, "tailLines"),
        limit_bytes=_number(query, "limitBytes"),
        since=since,
    )


def choose(worker: PodWorker, container: str, *, previous: bool) -> Record:
    """The attempt whose log is wanted. Raises Refusal in kubelet's words."""
    pod_name = worker.pod["metadata"]["name"]
    view = worker.views.by_name.get(container)
    spec = worker.pod["spec"]
    kinds = ("containers", "initContainers", "ephemeralContainers")
    names = [container["name"] for kind in kinds for container in spec.get(kind) or ()]
    if container not in names:
        raise Refusal(404, f'container "{container}" not found in pod "{pod_name}"')
    record = _previous(view) if previous else (view.current if view is not None else None)
    if record is not None:
        return record
    if previous:
        raise Refusal(400, f'previous terminated container "{container}" in pod "{pod_name}" not found')
    reason = view.waiting[0] if view is not None and view.waiting is not None else ""
    reason = _IMAGE_WORDS.get(reason, reason)
    if not reason:
        reason = "PodInitializing" if spec.get("initContainers") else "ContainerCreating"
    raise Refusal(400, f'container "{container}" in pod "{pod_name}" is waiting to start: {reason}')


async def serve(request: web.Request, worker: PodWorker) -> web.StreamResponse:
    """Stream the log."""
    query = dict(request.query)
    wanted = options(query)
    container = request.match_info["container"]
    record = choose(worker, container, previous=_flag(query, "previous"))
    response = web.StreamResponse(headers={"Content-Type": "text/plain"})
    response.enable_chunked_encoding()
    log = worker.directory.log(container, record.attempt)
    if not log.exists():
        raise Refusal(400, f'failed to try resolving symlinks in path "{log}": no such file or directory')

    def running() -> bool:
        current = worker.views.of(container).current
        return current is not None and current.id == record.id and current.running

    await response.prepare(request)
    async for data in read_log(log, wanted, running):
        await response.write(data)
    await response.write_eof()
    return response


def _previous(view: View | None) -> Record | None:
    if view is None:
        return None
    if view.waiting is not None and view.exited is not None:
        # Waiting for its next start: the newest attempt is the last terminated one.
        return view.exited
    return view.previous


def _flag(query: dict[str, str], name: str) -> bool:
    return query.get(name, "").lower() in ("true", "1", "t")


def _number(query: dict[str, str], name: str) -> int | None:
    text = query.get(name, "")
    if not text:
        return None
    if not text.lstrip("-").isdigit():
        raise Refusal(400, f"invalid {name}: {text}")
    return int(text)
