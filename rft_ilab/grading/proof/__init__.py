"""Proof before use: what a grader must show before it verifies data, pays rewards or judges.

:mod:`.golden`: every reference passes, golden cases hold. :mod:`.battery` fires the texts of :mod:`.hostile` at it, by
the rules of :mod:`.exploits` and :mod:`.rules`; :mod:`.mutation` changes references a little; :mod:`.waivers` reads
what an author declares inapplicable; :mod:`.prove` puts all of it together for one grader, :mod:`.lint_skill` a part
of it for one skill, :mod:`.lint` for a whole taxonomy. :mod:`.evidence` has the values they share.
"""
