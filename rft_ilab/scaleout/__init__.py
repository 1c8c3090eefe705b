"""Graders for other processes: :mod:`.server` speaks HTTP, :mod:`.answers` is what each route answers."""
