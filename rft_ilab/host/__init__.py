"""Everything that knows InstructLab: its configuration, its checkpoints, its existing commands."""
