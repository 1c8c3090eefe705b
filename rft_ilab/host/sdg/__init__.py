"""What rft-ilab adds to instructlab-sdg: importing this registers ``GraderFilterBlock``.

``ilab`` needs no import: :mod:`rft_ilab.host.hook` does it in every process that loads instructlab-sdg.
"""

from __future__ import annotations

import sys

from rft_ilab.host.sdg.block import GraderFilterBlock
from rft_ilab.host.sdg.generation import attach

__all__ = ["GraderFilterBlock", "attach"]

attach(sys.modules["instructlab.sdg.generate_data"])
