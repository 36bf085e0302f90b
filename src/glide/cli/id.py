"""glide id"""

from __future__ import annotations

import time

from glide.cli import options


def id(json: options.Json = None) -> None:
    """Your key and its fingerprint, to give to others. Made on first use."""
    from glide.cli.render import Renderer
    from glide.cli.run import ending
    from glide.crypto.identity import fingerprint, key_text, load_or_create

    renderer = Renderer(json=bool(json))
    with ending(renderer):
        chosen = options.settings(json=json)
        renderer.json = chosen["json"]
        key = load_or_create(chosen.home.identity).public
        if renderer.json:
            renderer.line({"event": "id", "time": time.time(), "key": key_text(key), "fingerprint": fingerprint(key)})
        else:
            print(f"key          {key_text(key)}\nfingerprint  {fingerprint(key)}")
