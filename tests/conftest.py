"""What holds for all tests."""

from __future__ import annotations

from hypothesis import settings

# A busy machine is no failed property: how long an example may take is pytest's affair (`timeout`).
settings.register_profile("glide", deadline=None)
settings.load_profile("glide")
