"""The local policy: a Hugging Face causal LM on torch, decoded by growing a token trie.

torch and transformers are imported by the modules below, not here.
"""

import os

# Before torch loads OpenMP: its threads spin at every barrier by default. Where another process wants the
# same cores, the spinning took ten times the work (40 greedy answers: 34 s against 3.4 s; docs/log.md).
# A spin of some microseconds before they sleep keeps nearly all of the speed of an idle machine.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
os.environ.setdefault("GOMP_SPINCOUNT", "3000")

# oneDNN compiles a kernel for every new shape, about 0.3 MB each in bf16, and keeps 1,024 of them; torch keeps as many
# once more. Shapes differ from step to step here, so that was 0.6 GB. A pass over a trie has 100 shapes, which every
# layer uses again; making a kernel takes 0.2 ms (docs/log.md).
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "256")
os.environ.setdefault("LRU_CACHE_CAPACITY", "256")
