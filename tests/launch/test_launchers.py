"""What all launchers share: exit codes, quoting, early errors, help, the image."""

import re
import shutil
import subprocess
import sys

import pytest

from tests.launch.stage import BATCH, KUBERNETES, LAUNCH, POD, POD_FULL, ROOT, SSH, WORDS
from train.guard import exit_codes


def shell(text, *words):
    """Runs bash with the launchers' shared functions."""
    return subprocess.run(
        ["bash", "-c", f"set -euo pipefail; . launch/common.sh; {text}", "bash", *words],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )


@pytest.mark.parametrize(
    "path", [*LAUNCH.glob("*.sh"), *LAUNCH.glob("*.sbatch")], ids=lambda p: p.name
)
def test_the_shell_can_read_it(path):
    assert subprocess.run(["bash", "-n", path], timeout=30, check=False).returncode == 0
    assert len(path.read_text().splitlines()) <= 250
    if path.name not in ("common.sh", "host.sh"):  # which others use
        assert "--dry-run" in path.read_text()


def test_the_exit_codes_are_those_of_the_program():
    text = (LAUNCH / "common.sh").read_text()
    assert f"PREEMPTED={exit_codes.PREEMPTED}\n" in text
    assert f"HUNG={exit_codes.HUNG}\n" in text


@pytest.mark.parametrize(
    ("code", "is_again"),
    [
        (0, False),
        (1, False),
        (2, False),
        (75, True),
        (76, True),
        (134, True),
        (137, True),
        (255, True),
    ],
)
def test_which_ends_are_followed_by_another_start(code, is_again):
    assert (shell(f"again {code}").returncode == 0) == is_again


def test_words_survive_the_shell_between():
    words = ["plain", "", "it's", 'a "b"', "$HOME `x` $(y)", "two\nlines", "*", "a\\b", "é;&|<>#!"]
    quoted = shell('quoted "$@"', *words).stdout
    again = subprocess.run(
        ["sh", "-c", f"for word in {quoted}; do printf '%s\\0' \"$word\"; done"],
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert again.stdout.split("\0")[:-1] == words


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ([LAUNCH / "ssh.sh", "--", *WORDS], "--hosts is missing, such as --hosts=a,b,c"),
        ([*SSH, "--port=x", "--", *WORDS], "--port=x must be an integer"),
        ([*SSH, "--attempts=0", "--", *WORDS], "--attempts=0 must be an integer"),
        ([*SSH, "--", "--config=x"], "--workdir=DIR"),
        ([*SSH, "--", *WORDS, "--process=1"], "--process=1 is set by the launcher"),
        ([*SSH, "--host=x"], "unknown option --host=x"),
        ([*POD, "--", *WORDS], "--type is missing, such as --type=v5litepod-64"),
        ([*POD_FULL, "--revision=nowhere", "--", *WORDS], "--revision=nowhere is not a commit"),
        ([*POD_FULL, "--"], "after --, give the arguments"),
        ([LAUNCH / "tpu_pod.sh", "fly", "--name=x"], "ACTION must be create, setup"),
        ([*BATCH, "--nodes=2", "--", *WORDS], "options of sbatch come before the script"),
        ([*BATCH, "--", *WORDS], "not inside a SLURM job"),
        ([LAUNCH / "setup.sh"], "the accelerator is missing"),
        ([LAUNCH / "setup.sh", "cpu", "no-such-python"], "no-such-python does not run"),
        ([*KUBERNETES, "--", "--config=x"], "--workdir=... is missing"),
        ([*KUBERNETES, "--", "--config=x", "--workdir=runs/a"], "would be lost with the Pod"),
        ([*KUBERNETES, "--", *WORDS, "--a=$(B)"], "write $$(...)"),
        ([*KUBERNETES, "--tpu=v5", "--", *WORDS], "are for TPUs"),
        ([*KUBERNETES, "--hosts=0", "--", *WORDS], "integer of at least 1"),
    ],
)
def test_what_is_missing_is_named_before_anything_runs(stage, command, says):
    for name in ("ssh", "gcloud", "kubectl"):
        stage.program(name, '#!/bin/sh\ntouch "$STAGE/ran"\n')
    code, _, errors = stage.run(*command)
    assert code == 2
    assert says in errors
    assert stage.notes("ran") == []


@pytest.mark.parametrize(
    ("command", "tool"),
    [(SSH, "ssh"), (POD_FULL, "gcloud"), (BATCH, "srun"), (KUBERNETES, "kubectl")],
)
def test_a_missing_tool_is_named(stage, tmp_path, command, tool):
    small = tmp_path / "few"
    small.mkdir()
    for name in ("bash", "git", "dirname", "mktemp", "rm", "grep", "cksum", "cut"):
        if shutil.which(name):
            (small / name).symlink_to(shutil.which(name))
    code, _, errors = stage.run(*command, "--", *WORDS, PATH=str(small), SLURM_JOB_ID="1")
    assert code != 0
    assert f"{tool} is not on PATH" in errors


def test_help_is_the_comment_at_the_top(stage):
    for command in (SSH[:1], [LAUNCH / "setup.sh"], [LAUNCH / "tpu_pod.sh"], BATCH):
        code, out, _ = stage.run(*command, "--help")
        assert code == 0
        assert "--dry-run" in out
        assert "set -e" not in out


def test_the_image_is_made_of_what_is_there():
    text = (LAUNCH / "Containerfile").read_text()
    version = re.search(r"^FROM python:3\.(\d+)-slim$", text, re.MULTILINE)[1]
    assert f"COPY requirements/py3{version}.txt " in text
    for source in re.findall(r"^COPY (\S+) ", text, re.MULTILINE):
        assert (ROOT / source).exists()
    assert re.findall(r"^USER (\S+)$", text, re.MULTILINE) == ["1000"]
    assert 'ENTRYPOINT ["python", "-m", "train"]' in text
    extras = set(re.findall(r"jax\[(\w+)\]", text))
    assert extras <= set(re.findall(r"jax\[(\w+)\]", (ROOT / "setup.py").read_text()))
    ignored = (ROOT / ".dockerignore").read_text().split()
    assert {".git", "runs", ".venv*"} <= set(ignored)


@pytest.mark.parametrize("accelerator", ["cpu", "cuda", "tpu"])
def test_the_environment_is_the_pinned_one(stage, accelerator):
    code, out, _ = stage.run(LAUNCH / "setup.sh", accelerator, sys.executable, "--dry-run")
    assert code == 0
    pins = "py311" if sys.version_info[:2] == (3, 11) else "py312"
    assert f"-r requirements/{pins}.txt" in out
    extras = {"cpu": None, "cuda": "jax[cuda13]", "tpu": "jax[tpu]"}
    assert (extras[accelerator] or "jax[") in out or accelerator == "cpu"
