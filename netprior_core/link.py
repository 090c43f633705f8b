"""An experiment as a short text for a link, and back. Uploaded images cannot be in a link; a recording's zip carries them."""

from __future__ import annotations

import base64
import binascii
import json
import zlib

from netprior_core.errors import InvalidSettings
from netprior_core.experiment import EmbeddedTarget, Experiment, UploadedShots, parse

MAX_LINK = 8000  # characters; browsers and proxies cut longer ones
MAX_TEXT = 256 * 1024


def encode(experiment: Experiment) -> str | None:
    """URL-safe text, or None when the experiment needs uploads or is too long for a link."""
    if not isinstance(experiment.target, EmbeddedTarget) or (
        isinstance(experiment.shots, UploadedShots) and experiment.shots.images
    ):
        return None
    text = json.dumps(experiment.model_dump(mode="json"), separators=(",", ":"))
    packed = base64.urlsafe_b64encode(zlib.compress(text.encode(), 9)).decode().rstrip("=")
    return packed if len(packed) <= MAX_LINK else None


def decode(text: str) -> Experiment:
    """The experiment of a link. Raises InvalidSettings for anything damaged or made by hand badly."""
    try:
        if len(text) > MAX_LINK:
            raise ValueError
        packed = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
        inflater = zlib.decompressobj()
        content = inflater.decompress(packed, MAX_TEXT)
        if inflater.unconsumed_tail or not inflater.eof:
            raise ValueError
    except (ValueError, binascii.Error, zlib.error):
        raise InvalidSettings("This link is damaged: copy it again, whole.") from None
    return parse(content)
