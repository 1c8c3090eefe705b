"""Graders: OpenAI's grammar and exact checks, run so that a failing grader is never a number.

:mod:`.template` fills ``{{item.x}}``; :mod:`.checks` has one file a family of checks; :mod:`.python`
and :mod:`.sandbox` run graders written in Python; :mod:`.multi` and :mod:`.formula` combine;
:mod:`.engine` builds a skill's grader; :mod:`.selftest` lints a taxonomy.
"""
