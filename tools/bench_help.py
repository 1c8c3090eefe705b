"""What rft-ilab adds to the start of ``ilab``: wall time of ``ilab --help`` with and without the plugin, interleaved.

The same interpreter runs three variants in turn, so that a busy machine hits all of them alike: the environment as it
is, the environment without the distribution ``rft-ilab`` (a directory of links to everything else in site-packages),
and the environment with pydantic's kill switch for plugins. Prints medians and differences; exits 1 if the plugin
adds more than ``--limit`` milliseconds.

    python tools/bench_help.py --rounds 15
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

PROGRAM = (
    "import sys; sys.path.insert(0, {site!r}); sys.argv = ['ilab', *{arguments!r}]; "
    "from instructlab.lab import ilab; ilab()"
)


def link_environment(directory: Path, *, with_plugin: bool) -> Path:
    """Fill ``directory`` with links to all of site-packages, with or without rft-ilab."""
    directory.mkdir()
    site = Path(sysconfig.get_paths()["purelib"])
    for entry in site.iterdir():
        ours = entry.name.startswith(("rft_ilab", "__editable__.rft_ilab", "__editable___rft_ilab"))
        if entry.name != "__pycache__" and (with_plugin or not ours):
            (directory / entry.name).symlink_to(entry)
    package = directory / "rft_ilab"
    if with_plugin and not package.exists():  # an editable installation
        package.symlink_to(Path(__file__).resolve().parent.parent / "rft_ilab")
    return directory


def wall_ms(site: Path, arguments: list[str], environment: dict[str, str]) -> float:
    """Milliseconds from start to end of one ``ilab`` process; raises if it fails."""
    program = PROGRAM.format(site=str(site), arguments=arguments)
    start = time.perf_counter()
    subprocess.run(
        [sys.executable, "-S", "-c", program],
        check=True,
        stdout=subprocess.DEVNULL,
        env=environment,
        cwd=site,
    )
    return (time.perf_counter() - start) * 1000


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=15, help="rounds after one for warming up (default 15)")
    parser.add_argument("--limit", type=float, default=50.0, help="most that the plugin may add, in ms (default 50)")
    parser.add_argument("arguments", nargs="*", default=["--help"], help="arguments of ilab (default --help)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        root = Path(temporary)
        installed = link_environment(root / "installed", with_plugin=True)
        absent = link_environment(root / "absent", with_plugin=False)
        plain = {key: value for key, value in os.environ.items() if key != "PYDANTIC_DISABLE_PLUGINS"}
        variants = {
            "installed": (installed, plain),
            "disabled": (installed, {**plain, "PYDANTIC_DISABLE_PLUGINS": "__all__"}),
            "absent": (absent, plain),
        }
        times: dict[str, list[float]] = {name: [] for name in variants}
        for _ in range(options.rounds + 1):
            for name, (site, environment) in variants.items():
                times[name].append(wall_ms(site, options.arguments, environment))
    medians = {name: statistics.median(values[1:]) for name, values in times.items()}
    print(f"ilab {' '.join(options.arguments)}: medians of {options.rounds} interleaved rounds")
    for name, values in times.items():
        print(f"  {name:<10} {medians[name]:7.1f} ms   (min {min(values[1:]):.1f}, max {max(values[1:]):.1f})")
    added = medians["installed"] - medians["absent"]
    print(f"the plugin adds {added:.1f} ms (limit {options.limit:g})")
    return int(added > options.limit)


if __name__ == "__main__":
    sys.exit(main())
