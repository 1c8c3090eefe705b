"""The cage: run Python that nobody vouches for (graders, tests, a model's code) and believe little of what it says.

Our side: :mod:`.pool` keeps warm fork servers (:mod:`.server`), :mod:`.child` talks to one of their children,
:mod:`.judge` runs a model's code against tests, each in a process of its own, :mod:`.capabilities` says how strong the
walls of this machine are, and :mod:`.checkup` tries them.
Their side, standard library only: :mod:`.zygote` is the fork server, :mod:`.lockdown` (with :mod:`.seccomp` and
:mod:`.landlock`) takes everything away from a child, then :mod:`.grader`, :mod:`.solver` or :mod:`.tester` runs in it.
Between them: :mod:`.frames` and :mod:`.values`, a binary protocol that is read strictly; nothing is unpickled.
"""
