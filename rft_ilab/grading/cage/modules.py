"""Which modules of the standard library foreign code gets. Standard library only.

Children read no file, so what they import is in the fork server's memory: :data:`ALWAYS`, and whatever of
:data:`ON_DEMAND` a source names in an import (found by :func:`named`, without parsing). Left out: what is native glue
(``ctypes``), starts things (``subprocess``, ``antigravity``, ``idlelib``), needs libraries that lie elsewhere (``ssl``,
``sqlite3``, ``bz2``), or is of no use behind the walls (``http.server``).
"""

from __future__ import annotations

import re


def _words(text: str) -> list[str]:
    return text.split()


ALWAYS = _words(
    "abc array base64 binascii bisect calendar cmath codecs collections collections.abc contextlib copy csv "
    "dataclasses datetime _strptime decimal difflib encodings.ascii encodings.cp1252 encodings.idna "
    "encodings.latin_1 encodings.punycode encodings.raw_unicode_escape encodings.unicode_escape encodings.utf_16 "
    "encodings.utf_16_le encodings.utf_16_be encodings.utf_32 encodings.utf_8_sig enum fractions functools hashlib "
    "heapq io itertools json keyword linecache locale math numbers operator os random re statistics string stringprep "
    "struct sys textwrap time traceback types typing unicodedata"
)
ON_DEMAND = frozenset(
    _words(
        "argparse ast asyncio atexit builtins cmd code codeop colorsys concurrent configparser contextvars copyreg dis "
        "email encodings errno faulthandler fileinput filecmp fnmatch gc getopt gettext glob graphlib hmac html "
        "importlib inspect io ipaddress logging marshal mimetypes opcode optparse pathlib pickle pickletools "
        "platform plistlib posixpath pprint profile queue quopri reprlib resource sched secrets select "
        "selectors shlex shutil signal socket sre_compile stat symtable sysconfig tempfile threading timeit token "
        "tokenize tracemalloc tty unittest urllib uuid warnings wave weakref xml zipimport zlib zoneinfo "
        "_bisect _collections_abc _datetime _decimal _json _pydecimal _random _thread"
    )
) | {name.partition(".")[0] for name in ALWAYS}
MAX_NAMES, MAX_NAME = 64, 60
_IMPORT = re.compile(
    r"\b(?:import|from)[ \t]+([A-Za-z_][\w., \t]{0,200})|\bimport_module\(\s*['\"]([\w.]{1,60})['\"]"
    r"|__import__\(\s*['\"]([\w.]{1,60})['\"]"
)


def named(source: str) -> list[str]:
    """Modules that a source imports somewhere, as far as they are on the list; linear in its length.

    >>> named("import math, xml.dom\\nfrom os import path\\n__import__('torch')")
    ['math', 'os', 'os.path', 'xml', 'xml.dom']
    """
    found: set[str] = set()
    for match in _IMPORT.finditer(source):
        clause = match[1] or match[2] or match[3]
        module, _, parts = clause.partition(" import ")
        for piece in module.split(","):
            name = piece.split()[0] if piece.split() else ""
            found.add(name)
            if parts:
                found.update(f"{name}.{part.split()[0]}" for part in parts.split(",") if part.split())
    # No private parts: `import asyncio.__main__` would start a console in the fork server.
    found |= {name.rpartition(".")[0] for name in found}
    known = (n for n in found if n.partition(".")[0] in ON_DEMAND and "._" not in n and not n.endswith("."))
    return sorted(n for n in known if n.isascii() and len(n) <= MAX_NAME)[:MAX_NAMES]
