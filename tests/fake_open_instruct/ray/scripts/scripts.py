"""``ray job submit``: runs the command in a copy of the working directory, without the environment of the caller."""

import os
import shutil
import subprocess
import sys
import tempfile


def main() -> int:
    options, command = sys.argv[1 : sys.argv.index("--")], sys.argv[sys.argv.index("--") + 1 :]
    assert options[:2] == ["job", "submit"] and options[2:4] == ["--address", "http://127.0.0.1:8265"]
    with tempfile.TemporaryDirectory() as home:
        work = os.path.join(home, "work")
        shutil.copytree(options[options.index("--working-dir") + 1], work)
        return subprocess.run(command, cwd=work, env={"PATH": os.environ["PATH"]}, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
