"""Bundles: made from a run with a tiny model, proven, and attacked."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from click.testing import CliRunner, Result
from safetensors.torch import load_file, save_file

from rft_ilab.cli.ship import ship as ship_command
from rft_ilab.cli.verify_bundle import verify_bundle as verify_command
from rft_ilab.config import TrainSettings
from rft_ilab.errors import RunError
from rft_ilab.pipeline import ship as ship_module
from rft_ilab.pipeline.bundle import BUNDLE, SUMS, read_bundle
from rft_ilab.pipeline.ship import Shipped, Wishes, ship
from rft_ilab.pipeline.verify_bundle import verify_bundle
from rft_ilab.policy.local.identity import directory_digest
from rft_ilab.policy.local.model import load_model
from rft_ilab.rl.engine import Engine
from rft_ilab.rl.export import save_merged, save_peft_adapter
from rft_ilab.store import write_json
from tests.tiny_model import make_tiny_model

TARGET, WATCHED = "area/target", "area/watched"
BASELINE = "local:" + "b" * 64 + ":float32"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with ``base``, and a ``run`` whose adapter was chosen at three quarters of its strength."""
    root = tmp_path_factory.mktemp("trained")
    engine = Engine(load_model(make_tiny_model(root / "base"), torch.float32), TrainSettings(lora_rank=4, lora_alpha=8))
    torch.manual_seed(1)
    engine.load_adapter({n: torch.randn_like(w) * 0.1 for n, w in engine.adapter().items()})
    engine.refresh_sampler(0.75)
    run = root / "run"
    save_peft_adapter(engine, 0.75, run / "adapter")
    save_merged(engine, run / "model")
    (run / "model.gguf").write_bytes(b"GGUF" + bytes(100))
    write_verdict(run, f"local:{directory_digest(run / 'model')}:float32")
    write_json(run / "manifest.json", manifest(root))
    leaf = root / "taxonomy" / "compositional_skills" / TARGET
    leaf.mkdir(parents=True)
    (leaf / "attribution.txt").write_text("License of the work: CC-BY-4.0 (text: LICENSES/CC-BY-4.0.txt)\n")
    (root / "LICENSES").mkdir()
    (root / "LICENSES" / "CC-BY-4.0.txt").write_text("the licence")
    return root


def manifest(root: Path) -> dict[str, Any]:
    digest = hashlib.sha256((root / "run" / "model.gguf").read_bytes()).hexdigest()
    gguf = {"checked": 16, "agree": 15, "kept": True, "sha256": digest}
    return {
        "identity": {"model": directory_digest(root / "base"), "targets": [TARGET], "endpoint": ""},
        "command": ["ilab", "rft", "run"],
        "versions": {"torch": "2"},
        "model": str(root / "base"),
        "stages": {
            "rl": {"gguf": gguf, "wall_s": 60.0, "cpu_s": 50.0},
            "gate": {"taxonomy": str(root / "taxonomy"), "wall_s": 2.0, "cpu_s": 2.0},
        },
    }


def write_verdict(run: Path, candidate: str, outcome: str = "PASS") -> None:
    """4 of 6 target tasks right after none; 3 of 4 watched ones before and after."""
    scores = {TARGET: ([0.0] * 6, [1.0] * 4 + [0.0] * 2), WATCHED: ([1.0] * 3 + [0.0], [1.0] * 3 + [0.0])}
    rows = []
    for suite, (before, after) in scores.items():
        for side, model, own in (("baseline", BASELINE, before), ("candidate", candidate, after)):
            for number, score in enumerate(own):
                rows.append(
                    {"suite": suite, "tier": "target", "side": side, "model": model, "demonstrations": 0, "class": None,
                     "max_tokens": 5, "temperature": 1.0, "seed": 1, "task_id": f"{number:064x}", "group": str(number),
                     "prompt": "?", "reference": "A", "score": score, "completion": "A", "answer": "A", "reason": "r",
                     "sampled": []}
                )  # fmt: skip
    (run / "gate").mkdir(exist_ok=True)
    (run / "gate" / "results.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    greedy = {"before": 0.0, "after": 4 / 6, "delta": 4 / 6, "ci": [0.3, 0.9], "before_prompt": "zero-shot", "p": 0.001}
    target = {"skill": TARGET, "n": 6, "ungraded": 0, "outcome": outcome, "reason": "r", "greedy": greedy}
    watched = {"skill": WATCHED, "tier": "critical", "n": 4, "ungraded": 0, "margin": 0.1, "prompt": "zero-shot",
               "before": 0.75, "after": 0.75, "delta": 0.0, "ci": [-0.05, 0.05], "outcome": "PASS"}  # fmt: skip
    verdict = {"outcome": outcome, "reasons": ["because"], "alpha": 0.05, "targets": [target], "watched": [watched],
               "baseline": {"id": BASELINE, "name": "base"}, "candidate": {"id": candidate, "name": "run/model"},
               "flips": []}  # fmt: skip
    write_json(run / "gate" / "verdict.json", verdict)


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained / "run", tmp_path / "demo"))


@pytest.fixture(scope="module")
def shipped(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ship(trained / "run", Wishes(output=tmp_path_factory.mktemp("shipped") / "bundle")).directory


@pytest.fixture
def bundle(shipped: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(shipped, tmp_path / "bundle"))


@pytest.fixture(scope="module")
def shipped_adapter(trained: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return ship(trained / "run", Wishes(output=tmp_path_factory.mktemp("adapter") / "b", adapter=True)).directory


@pytest.fixture
def adapter_bundle(shipped_adapter: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(shipped_adapter, tmp_path / "bundle"))


def relist(bundle: Path, change: Callable[[dict[str, Any]], None] = lambda listed: None) -> None:
    """What a forger does: list everything anew, so that all digests fit."""
    listed = json.loads((bundle / BUNDLE).read_text())
    for name, facts in listed["files"].items():
        facts |= facts_of(bundle / name)
    change(listed)
    write_json(bundle / BUNDLE, listed)
    own = {name: facts["sha256"] for name, facts in listed["files"].items()}
    own[BUNDLE] = hashlib.sha256((bundle / BUNDLE).read_bytes()).hexdigest()
    (bundle / SUMS).write_text("".join(f"{digest}  {name}\n" for name, digest in sorted(own.items())))


def facts_of(path: Path) -> dict[str, Any]:
    return {"bytes": path.stat().st_size, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}


def flip_a_bit(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


def invoke(command: Any, *arguments: str | Path) -> Result:
    return CliRunner(mix_stderr=False).invoke(command, [str(argument) for argument in arguments])


def test_a_shipped_bundle_is_proven(run: Path, trained: Path) -> None:
    shipped = ship(run, Wishes())
    assert isinstance(shipped, Shipped) and shipped.directory == run / "bundle" and shipped.outcome == "PASS"
    checked = verify_bundle(shipped.directory, expect=f"sha256:{shipped.digest}")
    assert checked.findings == () and len(checked.proof) == 3
    made = shipped.directory
    listed = {path.relative_to(made).as_posix() for path in made.rglob("*") if path.is_file()}
    assert {
        "README.md",
        "model.safetensors",
        "tokenizer.json",
        "model.gguf",
        "verdict.json",
        "verdict.md",
        "report.html",
        "evidence.jsonl",
        "ATTRIBUTION.md",
        "LICENSES/CC-BY-4.0.txt",
        BUNDLE,
        SUMS,
    } <= listed
    assert not [name for name in listed if "partial" in name or name.startswith("adapter")]
    done = subprocess.run(["sha256sum", "--quiet", "-c", SUMS], cwd=shipped.directory, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout
    # What judges a directory sees the judged model in it: `ilab model regress --model DIRECTORY` needs no more.
    assert directory_digest(shipped.directory) == directory_digest(run / "model")
    assert load_model(shipped.directory).digest == directory_digest(run / "model")


def test_verifying_needs_no_torch(bundle: Path) -> None:
    code = (
        "import sys, pathlib\nfrom rft_ilab.pipeline.verify_bundle import verify_bundle\n"
        "assert not verify_bundle(pathlib.Path(sys.argv[1])).findings and 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, str(bundle)], check=True)


def test_the_card_says_what_a_stranger_must_know(bundle: Path, trained: Path) -> None:
    card = (bundle / "README.md").read_text()
    front = yaml.safe_load(card.split("---\n")[1])
    assert front["license"] == "unknown" and front["base_model"] == "base" and front["library_name"] == "transformers"
    assert front["model-index"][0]["results"][0]["metrics"][0]["value"] == 0.6667
    for words in ("Did it get better?", "95% interval", "| area/target | trained | 6 | 0.0% | 66.7% |",
                  "## Limitations",
                  "The licence of the base model is not known", "15 of 16 prompts", "ilab rft verify-bundle DIRECTORY",
                  "No source is named for: area/watched", "ilab model regress --model DIRECTORY"):  # fmt: skip
        assert words in card, words
    assert str(trained) not in card and "CC-BY-4.0" in (bundle / "ATTRIBUTION.md").read_text()


def test_an_adapter_is_proven_by_merging(run: Path, trained: Path) -> None:
    made = ship(run, Wishes(adapter=True)).directory
    assert made.name == "bundle-adapter" and not (made / "model.safetensors").exists()
    assert json.loads((made / "adapter_config.json").read_text())["base_model_name_or_path"] == "base"
    checked = verify_bundle(made, base=trained / "base")
    assert checked.findings == () and "bit for bit" in checked.proof[1]
    with pytest.raises(RunError, match="name its base, base, with --base"):
        verify_bundle(made)
    with pytest.raises(RunError, match="not the adapter's base"):
        verify_bundle(made, base=run / "model")
    flip_a_bit(made / "adapter_model.safetensors")
    relist(made)
    assert "gives another model.safetensors than was judged" in verify_bundle(made, base=trained / "base").findings[0]


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"peft_type": "LOHA"}, "not a plain LoRA adapter: peft_type"),
        ({"alpha_pattern": {"q_proj": 0}}, "not a plain LoRA adapter: alpha_pattern"),
        ({"layer_replication": [[0, 1], [0, 1]]}, "not a plain LoRA adapter: layer_replication"),
        ({"auto_mapping": {"parent_library": "evil"}}, "not a plain LoRA adapter: auto_mapping"),
        ({"init_lora_weights": "pissa"}, "not a plain LoRA adapter: init_lora_weights"),
        ({"something_of_tomorrow": 1}, "not a plain LoRA adapter: something_of_tomorrow"),
        ({"target_modules": ".*q_proj"}, "not a plain LoRA adapter: target_modules"),
        ({"target_modules": ["q_proj"]}, "takes no part in the judged weights"),
        ({"base_model_name_or_path": "evil/base"}, "it would be put on 'evil/base', not on base"),
    ],
)
def test_settings_by_which_a_loader_would_make_other_weights(
    adapter_bundle: Path, trained: Path, change: dict[str, Any], said: str
) -> None:
    config = adapter_bundle / "adapter_config.json"
    config.write_text(json.dumps(json.loads(config.read_text()) | change))
    relist(adapter_bundle)
    assert_not_proven(adapter_bundle, trained, said)


@pytest.mark.parametrize(
    ("tensor", "said"),
    [
        ("base_model.model.lm_head.weight", "takes no part in the judged weights"),
        ("base_model.model.model.norm.lora_A.weight", "takes no part in the judged weights"),
        ("base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight", "does not fit its base"),
    ],
)
def test_tensors_by_which_a_loader_would_make_other_weights(
    adapter_bundle: Path, trained: Path, tensor: str, said: str
) -> None:
    file = adapter_bundle / "adapter_model.safetensors"
    save_file(load_file(file) | {tensor: torch.ones(3, 3)}, file, {"format": "pt"})
    relist(adapter_bundle)
    assert_not_proven(adapter_bundle, trained, said)


def assert_not_proven(bundle: Path, trained: Path, said: str) -> None:
    result = invoke(verify_command, bundle, "--base", trained / "base")
    assert result.exit_code in (1, 2) and said in result.stdout + result.stderr, result.stdout + result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize("name", ["modeling_tiny.py", "adapter_model.bin", "merges.txt"])
def test_a_list_of_judged_files_cannot_vouch_for_more_than_the_digest_covers(bundle: Path, name: str) -> None:
    (bundle / name).write_text("{}")

    def forge(listed: dict[str, Any]) -> None:
        listed["files"][name] = facts_of(bundle / name)
        listed["judged"]["files"][name] = listed["files"][name]["sha256"]

    relist(bundle, forge)
    assert f"{BUNDLE}: {name} is no file that the judged digest covers" in verify_bundle(bundle).findings


def test_a_list_of_tensors_names_judged_files_alone(adapter_bundle: Path, trained: Path) -> None:
    relist(adapter_bundle, lambda listed: listed["tensors"].update({"other.safetensors": []}))
    assert_not_proven(adapter_bundle, trained, "other.safetensors is no file of the judged model")


def test_whatever_was_altered_is_missing_or_additional_is_named(bundle: Path) -> None:
    flip_a_bit(bundle / "model.gguf")
    (bundle / "verdict.md").unlink()
    (bundle / "extra").mkdir()
    (bundle / "extra" / "more.safetensors").write_bytes(b"x")
    (bundle / "README.md").write_text("trust me")
    findings = verify_bundle(bundle).findings
    assert [finding.split(":")[0] for finding in findings] == [
        "README.md", "model.gguf", "verdict.md", "extra/more.safetensors"]  # fmt: skip
    assert [
        word in finding for word, finding in zip(("bytes", "sha256", "missing", "additional"), findings, strict=True)
    ]
    result = invoke(verify_command, bundle)
    assert result.exit_code == 1 and result.stdout.endswith("NOT PROVEN\n") and "verdict.md: missing" in result.stdout
    assert json.loads(invoke(verify_command, bundle, "--json").stdout)["proven"] is False


@pytest.mark.parametrize("everywhere", [False, True])
def test_other_weights_are_found_out_even_if_every_list_was_written_anew(bundle: Path, everywhere: bool) -> None:
    flip_a_bit(bundle / "model.safetensors")

    def forge(listed: dict[str, Any]) -> None:
        if everywhere:
            listed["judged"]["files"]["model.safetensors"] = listed["files"]["model.safetensors"]["sha256"]

    relist(bundle, forge)
    (finding,) = verify_bundle(bundle).findings
    assert ("do not have the judged digest" if everywhere else "not the judged") in finding


def test_a_forger_who_also_writes_the_verdict_is_caught_by_the_expected_digest(run: Path) -> None:
    shipped = ship(run, Wishes())
    flip_a_bit(shipped.directory / "model.gguf")
    relist(shipped.directory)
    assert verify_bundle(shipped.directory).findings == ()  # consistent, and so says the documentation
    assert "not the one that was expected" in verify_bundle(shipped.directory, expect=shipped.digest).findings[0]


@pytest.mark.parametrize("name", ["adapter_config.json", "adapter_model.bin", "modeling_tiny.py", "sub/config.json"])
def test_what_a_loader_would_find_beside_the_judged_weights_is_refused(bundle: Path, name: str) -> None:
    (bundle / name).parent.mkdir(exist_ok=True)
    (bundle / name).write_text("{}")
    relist(bundle, lambda listed: listed["files"].update({name: facts_of(bundle / name)}))
    assert verify_bundle(bundle).findings == (f"{name}: does not belong into a bundle; it was not judged",)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('"score": 0.0', '"score": 1.0', "the verdict says"),
        ('"side": "candidate"', '"side": "baseline"', "which was not judged"),
        (TARGET, "area/other", "which the verdict does not judge"),
        ('"score": 0.0', '"score": NaN', "not a line of results"),
    ],
)
def test_evidence_that_contradicts_the_verdict_is_named(bundle: Path, old: str, new: str, said: str) -> None:
    path = bundle / "evidence.jsonl"
    path.write_text(path.read_text().replace(old, new))
    relist(bundle)
    assert any(said in finding for finding in verify_bundle(bundle).findings)


def test_a_better_verdict_than_was_given_is_found_out(bundle: Path) -> None:
    verdict = json.loads((bundle / "verdict.json").read_text())
    verdict["outcome"] = "FAIL"
    write_json(bundle / "verdict.json", verdict)
    relist(bundle)
    assert "its outcome is FAIL, not PASS" in verify_bundle(bundle).findings[0]


def test_what_did_not_pass_is_not_shipped_unless_asked_and_then_says_so_first(run: Path) -> None:
    candidate = f"local:{directory_digest(run / 'model')}:float32"
    write_verdict(run, candidate, "INCONCLUSIVE")
    with pytest.raises(RunError, match="not shipped: the gate's verdict is INCONCLUSIVE; because"):
        ship(run, Wishes())
    assert not (run / "bundle").exists()
    made = ship(run, Wishes(despite=True)).directory
    card = (made / "README.md").read_text()
    text = card.split("---\n", 2)[2].strip()
    assert text.startswith("**NOT RELEASED BY ITS TESTS: the gate's verdict is INCONCLUSIVE.")
    assert card.startswith("---\n# NOT RELEASED BY ITS TESTS") and "verdict-inconclusive" in card
    checked = verify_bundle(made)
    assert checked.findings == () and checked.bundle.outcome == "INCONCLUSIVE"


def test_a_control_arm_is_not_shipped(run: Path) -> None:
    found = json.loads((run / "manifest.json").read_text()) | {"control": "random-reward"}
    write_json(run / "manifest.json", found)
    with pytest.raises(RunError, match="not shipped: a control run"):
        ship(run, Wishes())
    assert "CONTROL RUN" in (ship(run, Wishes(despite=True)).directory / "README.md").read_text()


def test_weights_that_were_not_judged_are_not_shipped(run: Path) -> None:
    flip_a_bit(run / "model" / "model.safetensors")
    with pytest.raises(RunError, match="the verdict is on other weights"):
        ship(run, Wishes(despite=True))


def test_a_gguf_that_training_did_not_write_is_not_shipped(run: Path) -> None:
    flip_a_bit(run / "model.gguf")
    with pytest.raises(RunError, match="not the GGUF that training wrote"):
        ship(run, Wishes())
    (run / "gate" / "results.jsonl").unlink()
    with pytest.raises(RunError, match=r"missing, a bundle has it as evidence\.jsonl"):
        ship(run, Wishes())
    assert not list(run.glob(".bundle*"))


def test_a_gate_without_training_has_nothing_to_ship(run: Path) -> None:
    shutil.rmtree(run / "model")
    stages = {"gate": {"question": {"candidate": "/models/x"}}}
    write_json(run / "manifest.json", {"kind": "gate", "identity": {"kind": "gate"}, "stages": stages})
    with pytest.raises(
        RunError, match=r"only judged a model and has none of its own \(name the model itself: /models/x"
    ):
        ship(run, Wishes())


def test_what_is_there_is_never_replaced(run: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("x")
    with pytest.raises(RunError, match="is there already, and is not replaced"):
        ship(run, Wishes(output=tmp_path / "mine"))
    assert [p.name for p in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def test_an_interrupted_shipment_goes_on(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(ship_module, "verify_bundle", lambda *a, **k: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            ship(run, Wishes())
    assert not (run / "bundle").exists()
    (run / ".bundle.partial" / "model.safetensors").write_bytes(b"torn")
    (run / ".bundle.partial" / "stray").write_bytes(b"of another try")
    said: list[str] = []
    made = ship(run, Wishes(), said.append).directory
    assert "model.safetensors: copying" in said and "tokenizer.json: is there from an earlier try" in said
    assert verify_bundle(made).findings == () and not list(run.glob(".bundle*"))


def hostile_link(bundle: Path) -> None:
    (bundle / "verdict.md").unlink()
    (bundle / "verdict.md").symlink_to("/etc/passwd")


def hostile_directory_link(bundle: Path) -> None:
    (bundle / "more").symlink_to("/etc")


def listing(change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def attack(bundle: Path) -> None:
        listed = json.loads((bundle / BUNDLE).read_text())
        change(listed)
        (bundle / BUNDLE).write_text(json.dumps(listed))

    return attack


def with_path(name: str) -> Callable[[Path], None]:
    return listing(lambda listed: listed["files"].update({name: {"bytes": 1, "sha256": "0" * 64}}))


ATTACKS: dict[str, tuple[Callable[[Path], None], str]] = {
    "link": (hostile_link, "verdict.md is a symbolic link"),
    "directory link": (hostile_directory_link, "more is a symbolic link"),
    "pipe": (lambda bundle: os.mkfifo(bundle / "pipe"), "pipe is no plain file"),
    "parent": (with_path("../run/manifest.json"), "does not stay in the bundle"),
    "inner parent": (with_path("a/../../b"), "does not stay in the bundle"),
    "absolute": (with_path("/etc/passwd"), "does not stay in the bundle"),
    "twice the same": (with_path("a//b"), "does not stay in the bundle"),
    "terminal": (with_path("a\x1b[2Jb"), "does not stay in the bundle"),
    "itself": (with_path(BUNDLE), "path"),
    "NaN": (listing(lambda listed: listed["files"]["verdict.md"].update(bytes=float("nan"))), "NaN is no number"),
    "size": (listing(lambda listed: listed["files"]["verdict.md"].update(bytes=-1)), "is no size"),
    "digest": (listing(lambda listed: listed["files"]["verdict.md"].update(sha256="x")), "is no sha256"),
    "format": (listing(lambda listed: listed.update(format="2")), "format '2'"),
    "no object": (lambda bundle: (bundle / BUNDLE).write_text("[]"), "not a list of a bundle"),
    "deep": (lambda bundle: (bundle / BUNDLE).write_text("[" * 200_000), "not the JSON of a bundle"),
    "twice": (lambda bundle: (bundle / BUNDLE).write_text('{"a": 1, "a": 2}'), "a key stands twice"),
    "bytes": (lambda bundle: (bundle / BUNDLE).write_bytes(b"\xff\xfe\x00"), "not the JSON of a bundle"),
    "huge": (lambda bundle: os.truncate(bundle / BUNDLE, 1 << 30), "more than 32 MiB"),
    "endpoint": (listing(lambda listed: listed["judged"].update(id="gpt-x")), "no local one"),
    "none": (lambda bundle: (bundle / BUNDLE).unlink(), "bundle.json is missing"),
}


@pytest.mark.parametrize("attack", ATTACKS)
def test_a_hostile_bundle_is_one_clear_line(bundle: Path, attack: str) -> None:
    strike, said = ATTACKS[attack]
    strike(bundle)
    result = invoke(verify_command, bundle)
    lines = [line for line in result.stderr.splitlines() if line.startswith("Error: ")]
    assert result.exit_code == 2 and len(lines) == 1 and said in lines[0], result.output
    assert "\x1b" not in result.output and len(lines[0]) < 700 and "Traceback" not in result.output


def test_hostile_text_does_not_break_out_of_the_card(run: Path) -> None:
    verdict = json.loads((run / "gate" / "verdict.json").read_text())
    attack = "x\n---\n# <script>alert(1)</script> ![x](http://evil.example) \u202e"
    verdict["reasons"] = [attack]
    verdict["targets"][0]["greedy"]["before_prompt"] = attack
    write_json(run / "gate" / "verdict.json", verdict)
    card = (ship(run, Wishes(base_name="a\n---\nb: c")).directory / "README.md").read_text()
    assert yaml.safe_load(card.split("\n---\n")[0].removeprefix("---\n"))["base_model"] == "a\n---\nb: c"
    assert "<script>" not in card and "\u202e" not in card and "![x]" not in card


def test_commands(run: Path, tmp_path: Path) -> None:
    made = invoke(ship_command, run, "--output", tmp_path / "out", "--licence", "mit", "--base-name", "me/base")
    assert made.exit_code == 0, made.output
    place, verdict, digest = made.stdout.splitlines()
    assert place == str(tmp_path / "out") and verdict.startswith("PASS, ") and digest.startswith("sha256:")
    assert "license: mit\nbase_model: me/base\n" in (tmp_path / "out" / "README.md").read_text()
    proven = invoke(verify_command, tmp_path / "out", "--expect", digest)
    assert proven.exit_code == 0 and proven.stdout.endswith("PROVEN. Verdict: PASS\n")
    assert invoke(verify_command, tmp_path / "out", "--expect", "sha256:" + "0" * 64).exit_code == 1
    assert invoke(verify_command, tmp_path / "nowhere").exit_code == 2
    assert invoke(ship_command, run, "--output", tmp_path / "out").exit_code == 2
    assert read_bundle(tmp_path / "out").base_name == "me/base"
