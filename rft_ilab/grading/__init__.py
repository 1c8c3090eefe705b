"""Graders: OpenAI's grammar and our own checks, run so that a failing grader is never a number.

:mod:`.registry` names the family of each type; :mod:`.checks` has one file a family, its golden cases beside it;
:mod:`.template` fills ``{{item.x}}``; :mod:`.multi` and :mod:`.formula` combine; :mod:`.remote` asks models and
servers; :mod:`.python` and :mod:`.sandbox` run graders written in Python in the :mod:`.cage`; :mod:`.engine` builds a
skill's grader. :mod:`.proof` is proof before use: what ``ilab taxonomy lint`` and ``ilab rft grader-test`` try.
"""
