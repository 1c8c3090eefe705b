"""Use cases that people already have, as skills: readers of other formats. What they make is proven in the pipeline."""
