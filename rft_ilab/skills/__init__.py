"""Skills on disk: the git tree (:mod:`.tree`), tasks and splits (:mod:`.tasks`), strict readers (:mod:`.reading`)."""
