"""Replacing a small file of our own as a whole."""

from __future__ import annotations

import os
import secrets
from pathlib import Path


def replace(path: Path, content: bytes) -> None:
    """Write ``path`` anew, mode 0600, synced; whoever reads it sees the old content or the new. Raises OSError.

    Its folder is made if need be. Blocks.
    """
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(fresh, path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
