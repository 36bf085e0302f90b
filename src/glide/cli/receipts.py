"""``--receipt``: what was confirmed, in a file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from glide import files
from glide.client.push import Receipt
from glide.crypto.identity import key_text
from glide.errors import FileError, UsageError
from glide.text import printable


def wanted(file: str | None, paths: Sequence[str] = ()) -> Path | None:
    """Where to write what is confirmed of a push of ``paths``, as ``--receipt`` says; None if it does not.

    Raises :class:`UsageError`, and :class:`FileError` if it is known beforehand that nothing can be written there.
    """
    if file is None:
        return None
    if file in ("", "-", *paths):
        raise UsageError("--receipt wants a file of its own to write to.", "Nobody was disturbed.")
    path = Path(file).expanduser()
    if not path.resolve().parent.is_dir():
        raise FileError(
            f"The receipt cannot be written: there is no folder {printable(str(path.parent))}.",
            "Nobody was disturbed.",
        )
    return path


def write(path: Path | None, receipt: Receipt | list[Receipt]) -> None:
    """Write one, or a list of them, as JSON; nothing without a path. Raises :class:`FileError`. Blocks."""
    if path is None:
        return
    import json

    record = [_record(each) for each in receipt] if isinstance(receipt, list) else _record(receipt)
    content = (json.dumps(record, indent=2) + "\n").encode()
    try:
        if path.exists() and not path.is_file():
            path.write_bytes(content)  # a pipe or device: not to be replaced
        else:
            files.replace(path, content)
    except OSError as error:
        raise FileError(
            f"The receipt cannot be written to {printable(str(path))}: {error.strerror}.",
            "All was delivered; only the receipt is missing.",
        ) from None


def _record(receipt: Receipt) -> dict[str, Any]:
    return {
        "transfer": receipt.transfer.hex(),
        "time": receipt.time,
        "relay": key_text(receipt.relay_key),
        "from": receipt.sender,
        "from_key": key_text(receipt.sender_key),
        "to": receipt.to,
        "to_key": key_text(receipt.to_key),
        "items": receipt.items,
        "bytes": receipt.bytes,
        "digest": f"blake3:{receipt.digest.hex()}",
    }
