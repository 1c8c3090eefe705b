"""One pytest session with a model: which files are skills, when the model is asked, what the terminal says."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Any

import pytest

from rft_ilab.config import Settings, load_settings
from rft_ilab.errors import RftError
from rft_ilab.pytest_plugin.answers import Answered, Answers
from rft_ilab.pytest_plugin.items import Shown, SkillFile, SkillItem, Verdict, leaf_of
from rft_ilab.pytest_plugin.wishes import Wishes, read_wishes
from rft_ilab.pytest_plugin.wording import first_line, table
from rft_ilab.skills.tree import check_settings, leaf_names
from rft_ilab.store import user_directory
from rft_ilab.types import Task

MARKERS = (
    "rft(skill, tier, split): a task of a skill, or the accuracy of one",
    "rft_accuracy: whether the accuracy that was asked for is reached",
)
FRESH = "rft_ilab_fresh"


def start(config: pytest.Config) -> None:
    """Register the hooks. Raises pytest.UsageError for options that cannot be meant, and for pytest 7."""
    if not hasattr(pytest, "Dir"):
        raise pytest.UsageError(f"--rft-model needs pytest 8 or later; this is {pytest.__version__}")
    for marker in MARKERS:
        config.addinivalue_line("markers", marker)
    wishes = read_wishes(config)
    # A process of pytest-xdist; they share what the first one made.
    worker: Mapping[str, Any] | None = getattr(config, "workerinput", None)
    cache = user_directory("cache") / "results.sqlite"
    if wishes.fresh and worker is not None:
        cache = Path(worker[FRESH])
    elif wishes.fresh:
        temporary = tempfile.TemporaryDirectory(prefix="rft-ilab-")
        config.add_cleanup(temporary.cleanup)
        cache = Path(temporary.name) / "fresh.sqlite"
    config.pluginmanager.register(Session(config, wishes, cache), "rft-ilab-session")


class Session:
    """The plugin of a session with a model. ``problems`` of a file are raised by each of its tests."""

    def __init__(self, config: pytest.Config, wishes: Wishes, cache: Path) -> None:
        self.config, self.wishes, self._cache = config, wishes, cache
        self.answers = Answers(wishes, cache)
        self._settings: dict[Path, Settings] = {}
        self._names: set[str] = set()
        self._selected: dict[SkillFile, dict[str, Task]] = {}
        self._answered: dict[SkillFile, Mapping[str, Answered] | Exception] = {}
        self._outcomes: dict[str, tuple[str, str]] = {}

    def settings(self, taxonomy: Path) -> Settings:
        """``rft.toml`` of a taxonomy, read once. Raises SkillError."""
        if taxonomy not in self._settings:
            settings, names = load_settings(taxonomy), leaf_names(taxonomy)
            check_settings(taxonomy, settings, names)
            self._settings[taxonomy] = settings
            self._names |= set(names)
        return self._settings[taxonomy]

    def answered(self, file: SkillFile) -> Mapping[str, Answered]:
        """Answers to the selected tasks of a skill. Raises Verdict, or a bug with its traceback."""
        found = self._answered[file]
        if isinstance(found, RftError):
            raise Verdict(first_line(str(found), 300), [])
        if isinstance(found, Exception):
            raise found
        return found

    # Collection

    def pytest_collect_file(self, file_path: Path, parent: pytest.Collector) -> SkillFile | None:
        """A leaf with one of the two files needs both: the other one's absence is an error, no reason to skip it."""
        known = {"tasks.jsonl": True, "grader.json": not file_path.with_name("tasks.jsonl").exists()}
        if not known.get(file_path.name) or leaf_of(file_path) is None:
            return None
        file: SkillFile = SkillFile.from_parent(parent, path=file_path)
        file.rft = self
        return file

    @pytest.hookimpl(tryfirst=True)
    def pytest_ignore_collect(self, collection_path: Path) -> bool | None:
        """Python in a leaf comes with a pull request and runs in the sandbox only, doctests and tests included."""
        return True if collection_path.suffix == ".py" and leaf_of(collection_path) is not None else None

    @pytest.hookimpl(tryfirst=True)
    def pytest_collect_directory(self, path: Path, parent: pytest.Collector) -> pytest.Dir | None:
        """A leaf is no package: pytest would import its ``__init__.py``."""
        made: pytest.Dir | None = None
        if leaf_of(path / "tasks.jsonl") is not None:
            made = pytest.Dir.from_parent(parent, path=path)
        return made

    @pytest.hookimpl(tryfirst=True)
    def pytest_collection_finish(self, session: pytest.Session) -> None:
        for item in session.items:
            if isinstance(item, SkillItem):
                self._selected.setdefault(item.file, {}).update((task.id, task) for task in item.tasks)
        if self._names and (unknown := set(self.wishes.least) - self._names - {""}):
            known = ", ".join(sorted(self._names))
            raise pytest.UsageError(f"--rft-min-accuracy: no skill {min(unknown)!r} (one of {known})")

    # Asking the model

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Generator[None, object, object]:
        """Outside of everything else, so that the batch is in no test's time and under no test's time limit."""
        if isinstance(item, SkillItem) and item.file not in self._answered:
            self._ask(item.file)
        return (yield)

    def _ask(self, file: SkillFile) -> None:
        tasks = list(self._selected[file].values())
        try:
            advance = self._progress(file.skill, len(tasks))
            self._answered[file] = self.answers.ask(file.environment, tasks, file.sampling, advance)
        except Exception as error:  # noqa: BLE001 - every test of the skill raises it: an error, not the session's end
            self._answered[file] = error

    def _progress(self, skill: str, total: int) -> Callable[[int], None]:
        """Takes the number of tasks just answered, first of all those that are cached; says it in one line."""
        terminal = self.config.pluginmanager.get_plugin("terminalreporter")
        done = -1

        def advance(units: int) -> None:
            nonlocal done
            first, done = done < 0, max(done, 0) + units
            if terminal is None or self.config.option.verbose < 0 or (first and done == total):
                return
            if first:
                terminal.ensure_newline()
            if terminal.isatty:
                terminal.rewrite(f"rft: {skill}: {done} of {total} tasks answered", erase=True)
                if done == total:
                    terminal.write_line("")
            elif first:
                terminal.write_line(f"rft: {skill}: {total - done} tasks to answer")

        return advance

    # What is said

    def pytest_report_header(self) -> str:
        return f"rft: {self.wishes}"

    def pytest_report_collectionfinish(self) -> str | list[str]:
        """What the run costs, before it starts."""
        if self.config.option.collectonly or not self._selected:
            return []
        wanted = [(file.environment, list(tasks.values()), file.sampling) for file, tasks in self._selected.items()]
        try:
            return self.answers.cost(wanted)
        except Exception as error:  # noqa: BLE001 - the same comes when the model is asked, as errors of the tests
            return f"rft: the cost is not known: {first_line(str(error), 300)}"

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        report = yield
        if isinstance(item, SkillItem) and call.excinfo is not None and isinstance(call.excinfo.value, Verdict):
            path = item.nodeid.partition("::")[0]
            brief = self.config.option.tbstyle == "line"
            report.longrepr = Shown(path, item.line, call.excinfo.value, brief=brief)  # type: ignore[assignment]
        return report

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """From the report's properties, which processes of pytest-xdist send, too."""
        given = dict(report.user_properties)
        if "rft_outcome" in given:
            self._outcomes[report.nodeid] = (str(given["rft_skill"]), str(given["rft_outcome"]))

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        outcomes: dict[str, list[str]] = {}
        for skill, outcome in self._outcomes.values():
            outcomes.setdefault(skill, []).append(outcome)
        if outcomes:
            terminalreporter.section(f"use cases: {self.wishes}")
            for line in table(outcomes):
                terminalreporter.write_line(line)

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node: Any) -> None:
        """A process of pytest-xdist is about to start."""
        node.workerinput[FRESH] = str(self._cache)
