"""Python's collector of cyclic garbage, held back while many values are made at once.

Called by back ends around a full sync: of tens of thousands of new values none is garbage before the end, and the
collector, which looks at all of them again and again, takes more than half of the time.
"""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_lock = threading.Lock()
_holders = 0


@contextmanager
def collection_held() -> Iterator[None]:
    """While the block runs, in whatever thread, nothing is collected. Blocks may overlap.

    A collector that was switched off before stays so.
    """
    global _holders
    with _lock:
        held = _holders > 0 or gc.isenabled()
        if held:
            _holders += 1
            gc.disable()
    try:
        yield
    finally:
        if held:
            with _lock:
                _holders -= 1
                if not _holders:
                    gc.enable()
