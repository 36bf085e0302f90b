"""glide id"""

from __future__ import annotations

from glide.cli import options


def id(json: options.Json = None) -> None:
    """Your key and its fingerprint, to give to others. Made on first use."""
    from glide.crypto.identity import fingerprint, key_text, load_or_create

    with options.verb(json=json) as (chosen, renderer):
        key = load_or_create(chosen.home.identity).public
        if renderer.json:
            renderer.line("id", key=key_text(key), fingerprint=fingerprint(key))
        else:
            renderer.out(f"key          {key_text(key)}\nfingerprint  {fingerprint(key)}")
