"""The protocol between our process and a child: one header, then a body of stated length.

Header: 16 bytes of nonce, kind, index (of a sample or a test), length. A child echoes the nonce of what it was asked;
anything else on the channel is a forgery and ends the child. What a kind of frame may carry is said beside it.
"""

from __future__ import annotations

import struct

NONCE_BYTES = 16
HEADER = struct.Struct("!16sBII")
#: role of the child, megabytes of memory, seconds of processor time; then names of modules to import before the fork
REQUEST = struct.Struct("!BII")
#: what the fork server could do: seccomp, version of Landlock, user id of its children; then what went wrong
HELLO = struct.Struct("!?Ii")
#: how a child ended, in the form of os.waitpid
STATUS = struct.Struct("!i")
#: before anything else, our process sends a child: nonce, length of the payload, payload
PAYLOAD = struct.Struct("!16sQ")
SCORE_BODY = struct.Struct("!d")

GRADER, SOLVER, TESTER = 1, 2, 3

(
    READY,  # a child is locked in; from here on it runs what nobody vouches for. No body.
    FAULT,  # before READY: the walls could not be built. From a tester: the test is at fault. Text.
    LOADED,  # grader: the source ran. Tester: the tests are compiled; then: it has the names (a body: and values).
    UNLOADABLE,  # grader, solver: it did not. Text.
    SCORE,  # grader: 8 bytes of float.
    ZERO,  # grader: the sample's solution failed, which is a score of 0. Text.
    ERROR,  # grader: no score. First line, a zero byte, traceback.
    SOLVE,  # grader asks us to run a solution: 4 bytes of length, its source, then as CALL.
    NAMES,  # solver, and from us to a tester: the functions and the plain values that the solution defines.
    CALL,  # to a solver, and from a tester to us: encoded [name, arguments, keyword arguments].
    RESULT,  # solver, and on to who called: an encoded value.
    RAISED,  # as RESULT: name of the exception, description, its own text; zero bytes in between.
    UNPLAIN,  # as RESULT: it returned what does not cross. Text.
    GONE,  # from us: the solution has crashed, hung or does not load. Text.
    PASSED,  # tester. No body.
    FAILED,  # tester. Text.
) = range(1, 17)

MAX_TEXT = 400  # bytes
MAX_TRACEBACK = 4000
MAX_VALUE = 4 << 20
MAX_BODY = MAX_VALUE + (1 << 20)  # a call with the source of its solution
LOCK_FAILED = 71


def text(body: bytes, limit: int = MAX_TEXT, *, keep: str = "") -> str:
    """What a child says, fit for a terminal: no control characters, nothing that turns the reading direction.

    >>> text(b"no \\x1b[2J\\n")
    'no \\\\x1b[2J\\\\n'
    """
    decoded = body[:limit].decode("utf-8", "replace")
    return "".join(c if c.isprintable() or c in keep else ascii(c)[1:-1] for c in decoded)
