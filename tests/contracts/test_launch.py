"""The launchers: what they would run, and what they do when hosts end in every way they can.

The scripts are the real ones; `ssh`, `srun`, `scontrol` and `gcloud` are stubs that run on this
machine what another would. How the real ones behave is known from their documentation only.
"""

import importlib.util
import pathlib
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
import yaml

from train import exits

ROOT = pathlib.Path(__file__).resolve().parents[2]
LAUNCH = ROOT / "launch"
pytestmark = pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")


def load(path: pathlib.Path):
    """Imports a file that is in no package."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


launching = load(pathlib.Path(__file__).with_name("launching.py"))
jobset = load(LAUNCH / "jobset.py")
WORDS = launching.WORDS


@pytest.fixture
def stage(tmp_path):
    stage = launching.Stage(tmp_path / "stage")
    stage.program("ssh", launching.SSH)
    return stage


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


# What all share.


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
    assert f"PREEMPTED={exits.PREEMPTED}\n" in text
    assert f"HUNG={exits.HUNG}\n" in text


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


SSH = [LAUNCH / "ssh.sh", "--hosts=me@one,two"]
POD = [LAUNCH / "tpu_pod.sh", "all", "--name=pod", "--zone=us-x"]
POD_FULL = [*POD, "--type=v5litepod-64", "--runtime=v2-alpha-tpuv5-lite"]
BATCH = ["bash", LAUNCH / "slurm.sbatch"]
KUBERNETES = [
    *(sys.executable, LAUNCH / "jobset.py", "--name=run", "--image=registry/perceiver:1"),
    *("--accelerator=gpu", "--hosts=4", "--devices=8"),
]


@pytest.mark.parametrize(
    ("command", "says"),
    [
        ([LAUNCH / "ssh.sh", "--", *WORDS], "--hosts is missing, such as --hosts=a,b,c"),
        ([*SSH, "--port=x", "--", *WORDS], "--port=x must be a whole number"),
        ([*SSH, "--attempts=0", "--", *WORDS], "--attempts=0 must be a whole number"),
        ([*SSH, "--", "--config=x"], "--workdir=DIR"),
        ([*SSH, "--", *WORDS, "--process=1"], "--process=1 is for the launcher to set"),
        ([*SSH, "--host=x"], "unknown option --host=x"),
        ([*POD, "--", *WORDS], "--type is missing, such as --type=v5litepod-64"),
        ([*POD_FULL, "--revision=nowhere", "--", *WORDS], "--revision=nowhere is no commit"),
        ([*POD_FULL, "--"], "behind -- come the words"),
        ([LAUNCH / "tpu_pod.sh", "fly", "--name=x"], "the first word is create, setup"),
        ([*BATCH, "--nodes=2", "--", *WORDS], "sbatch's own come before the script"),
        ([*BATCH, "--", *WORDS], "not within a job"),
        ([LAUNCH / "setup.sh"], "for which accelerator?"),
        ([LAUNCH / "setup.sh", "cpu", "no-such-python"], "no-such-python does not run"),
        ([*KUBERNETES, "--", "--config=x"], "--workdir=... is missing"),
        ([*KUBERNETES, "--", "--config=x", "--workdir=runs/a"], "would be lost with the Pod"),
        ([*KUBERNETES, "--", *WORDS, "--a=$(B)"], "write $$(...)"),
        ([*KUBERNETES, "--tpu=v5", "--", *WORDS], "are of TPUs"),
        ([*KUBERNETES, "--hosts=0", "--", *WORDS], "whole number of at least 1"),
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
    assert f"there is no {tool} on PATH" in errors


def test_help_is_the_comment_at_the_top(stage):
    for command in (SSH[:1], [LAUNCH / "setup.sh"], [LAUNCH / "tpu_pod.sh"], BATCH):
        code, out, _ = stage.run(*command, "--help")
        assert code == 0
        assert "--dry-run" in out
        assert "set -e" not in out


# Plain SSH.


def train_by_ssh(stage, *options):
    return [*SSH, f"--python={stage.python}", f"--directory={ROOT}", "--pause=0", *options]


def test_ssh_dry_run(stage):
    code, out, _ = stage.run(*SSH, "--port=77", "--directory=/a b", "--dry-run", "--", *WORDS)
    assert code == 0
    first, second = out.splitlines()
    assert first.startswith("ssh -o BatchMode=yes")
    assert " me@one " in first
    assert " two " in second
    for index, line in enumerate((first, second)):
        assert f"--coordinator=one:77 --processes=2 --process={index}'" in line
    assert stage.notes("ssh") == []


def test_ssh_trains_on_all_hosts(stage):
    for process in (0, 1):
        stage.play(process, 0, "exit 0")
    code, _, errors = stage.run(*train_by_ssh(stage), "--", *WORDS)
    assert (code, errors) == (0, "")
    assert sorted(stage.lines("ssh")) == ["me@one", "two"]
    for process in (0, 1):
        assert stage.lines(f"words.{process}.0") == [
            *("-m", "train", *WORDS),
            *("--coordinator=one:12355", "--processes=2", f"--process={process}"),
        ]


def test_ssh_an_error_stops_the_others_and_is_final(stage):
    stage.play(1, 0, "sleep 0.3; exit 1")
    code, _, errors = stage.run(*train_by_ssh(stage), "--", *WORDS)
    assert code == 1
    assert "host two (process 1) ended first, with code 1" in errors
    assert "Not started again" in errors
    assert stage.notes("told.*") == ["told.0.0"]
    assert stage.notes("words.*") == ["words.0.0", "words.1.0"]


@pytest.mark.parametrize("end", ["exit 76", "kill -KILL $$"])
def test_ssh_starts_all_again(stage, end):
    stage.play(0, 0, f"sleep 0.3; {end}")
    for process in (0, 1):
        stage.play(process, 1, "exit 0")
    code, _, errors = stage.run(*train_by_ssh(stage), "--", *WORDS)
    assert code == 0
    assert "attempt 2 of 20 follows" in errors
    assert stage.notes("told.*") == ["told.1.0"]
    assert stage.notes("words.*") == ["words.0.0", "words.0.1", "words.1.0", "words.1.1"]


def test_ssh_a_preempted_host_leaves_the_others_time_to_save(stage):
    stage.play(0, 0, "sleep 0.3; exit 75")
    stage.play(1, 0, "sleep 1; exit 75")
    for process in (0, 1):
        stage.play(process, 1, "exit 0")
    assert stage.run(*train_by_ssh(stage), "--", *WORDS)[0] == 0
    assert stage.notes("told.*") == []


def test_ssh_but_not_for_ever(stage):
    stage.play(0, 0, "sleep 0.3; exit 75")
    for process in (0, 1):
        stage.play(process, 1, "exit 0")
    assert stage.run(*train_by_ssh(stage, "--grace=1"), "--", *WORDS)[0] == 0
    assert stage.notes("told.*") == ["told.1.0"]


def test_ssh_gives_up_after_the_last_attempt(stage):
    for start in (0, 1):
        stage.play(0, start, "exit 76")
    code, _, errors = stage.run(*train_by_ssh(stage, "--attempts=2"), "--", *WORDS)
    assert code == 76
    assert "that was the last of 2 attempts" in errors
    assert len(stage.notes("words.0.*")) == 2


def test_ssh_a_host_that_does_not_listen_is_killed(stage):
    stage.play(0, 0, "trap '' TERM; echo $$ >$STAGE/stubborn; while :; do sleep 0.05; done")
    stage.play(1, 0, "sleep 0.5; exit 1")
    code, _, _ = stage.run(*train_by_ssh(stage, "--grace=1"), "--", *WORDS)
    assert code == 1
    assert not is_alive(int(stage.lines("stubborn")[0]))


def test_ssh_sigterm_stops_all_and_nothing_starts_again(stage):
    child = stage.begin(*train_by_ssh(stage), "--", *WORDS)
    try:
        for process in (0, 1):
            stage.await_note(f"words.{process}.0")
        time.sleep(0.2)  # the stand-in listens
        child.send_signal(signal.SIGTERM)
        _, errors = child.communicate(timeout=30)
    finally:
        launching.end(child)
    assert child.returncode == exits.PREEMPTED
    assert "stopped; host" in errors
    assert stage.notes("told.*") == ["told.0.0", "told.1.0"]
    assert len(stage.notes("words.*")) == 2


def test_ssh_hosts_stop_when_the_launcher_is_killed(stage):
    """And nothing that they say meanwhile makes them fail before they have saved."""
    for process in (0, 1):
        stage.play(process, 0, "while echo; do sleep 0.05; done; touch $STAGE/broken; exit 1")
    child = stage.begin(*train_by_ssh(stage), "--", *WORDS)
    try:
        for process in (0, 1):
            stage.await_note(f"words.{process}.0")
        time.sleep(0.2)
        child.kill()
        child.stdout.close()
        for process in (0, 1):
            stage.await_note(f"told.{process}.0", timeout=10)
    finally:
        launching.end(child)
    assert stage.notes("broken") == []


HOST = ["bash", LAUNCH / "host.sh", "--key=x"]


@pytest.mark.skipif(shutil.which("flock") is None, reason="needs flock")
def test_a_host_runs_one_life_at_a_time(stage):
    first = stage.begin(*HOST, "--", stage.python)
    try:
        stage.await_note("words.0.0")
        code, _, errors = stage.run(*HOST, "--wait=0", "--", stage.python)
        assert code == exits.HUNG
        assert "an earlier training" in errors
        assert stage.run(*HOST[:2], "--key=y", "--", "true")[0] == 0  # another run
        assert stage.run(*HOST, "--stop")[0] == 0
        first.communicate(timeout=20)
        assert first.returncode == exits.PREEMPTED
        assert stage.run(*HOST, "--wait=5", "--", "sh", "-c", "exit 3")[0] == 3
        assert stage.run(*HOST, "--stop")[0] == 0  # nothing to stop
    finally:
        launching.end(first)


def test_a_host_passes_on_output_and_errors(stage):
    code, out, errors = stage.run(*HOST, "--", "sh", "-c", "echo out; echo err >&2; exit 7")
    assert (code, out, errors) == (7, "out\n", "err\n")


def test_a_host_without_the_environment_says_so(stage):
    code, _, errors = stage.run(*HOST, "--", ".venv-of-nobody/bin/python", "-m", "train")
    assert code == 2
    assert "launch/setup.sh" in errors


def is_alive(pid: int) -> bool:
    """Whether a process runs; one that is dead and not yet collected does not."""
    try:
        return pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


# SLURM.

SRUN = """#!/bin/sh
for word in "$@"; do echo "$word"; done >>"$STAGE/srun"
env | grep -E '^(JAX_LOCAL|SRUN_)' >>"$STAGE/srun"
while [ "${1#--}" != "$1" ]; do shift; done
pids=
trap 'for pid in $pids; do kill -TERM $pid; done' TERM
for task in 0 1; do
  SLURM_PROCID=$task "$@" &
  pids="$pids $!"
done
highest=0
for pid in $pids; do
  code=200
  while :; do
    wait $pid
    code=$?
    kill -0 $pid 2>/dev/null || break
  done
  [ $code -le $highest ] || highest=$code
done
exit $highest
"""


@pytest.fixture
def cluster(stage):
    stage.program("srun", SRUN)
    stage.program("scontrol", '#!/bin/sh\necho "$@" >>"$STAGE/scontrol"\n')
    stage.environment |= {
        "SLURM_JOB_ID": "7",
        "SLURM_SUBMIT_DIR": str(ROOT),
        "SLURM_GPUS_ON_NODE": "4",
        "SLURM_NTASKS_PER_NODE": "1",
        "SLURM_CPUS_PER_TASK": "3",
    }
    return stage


def test_slurm_dry_run(stage):
    code, out, _ = stage.run(*BATCH, "--grace=9", "--dry-run", "--", *WORDS)
    assert code == 0
    assert out.startswith("srun --kill-on-bad-exit=0 --wait=9 .venv/bin/python -m train --config=")


def test_slurm_settings_of_the_job():
    text = (LAUNCH / "slurm.sbatch").read_text()
    directives = re.findall(r"^#SBATCH (\S+)$", text, re.MULTILINE)
    assert {"--requeue", "--signal=B:TERM@120", "--open-mode=append"} <= set(directives)
    first_command = text.index("set -euo")
    assert text.rindex("#SBATCH") < first_command  # SLURM reads no further


def batch(stage, *options):
    return [*BATCH, f"--python={stage.python}", *options, "--", *WORDS]


def test_slurm_trains(cluster):
    for task in (0, 1):
        cluster.play(task, 0, "exit 0")
    code, _, errors = cluster.run(*batch(cluster))
    assert (code, errors) == (0, "")
    assert cluster.lines("words.1.0") == ["-m", "train", *WORDS]
    # One task a node has all its GPUs, and srun is told the number of cores.
    assert {"JAX_LOCAL_DEVICE_IDS=0,1,2,3", "SRUN_CPUS_PER_TASK=3"} <= set(cluster.lines("srun"))
    assert cluster.notes("scontrol") == []


def test_slurm_one_task_a_gpu_lets_jax_choose(cluster):
    for task in (0, 1):
        cluster.play(task, 0, "exit 0")
    cluster.run(*batch(cluster), SLURM_NTASKS_PER_NODE="4")
    assert not any(line.startswith("JAX_LOCAL") for line in cluster.lines("srun"))


@pytest.mark.parametrize(
    ("end", "restarts", "expected", "queued"),
    [
        ("exit 75", "0", 75, True),
        ("exit 76", "3", 76, True),
        ("kill -KILL $$", "0", 137, True),
        ("exit 75", "4", 75, False),  # the fifth start, of five
        ("exit 1", "0", 1, False),
    ],
)
def test_slurm_queues_again_what_can_go_on(cluster, end, restarts, expected, queued):
    for task in (0, 1):
        cluster.play(task, 0, end)
    code, _, errors = cluster.run(*batch(cluster, "--attempts=5"), SLURM_RESTART_COUNT=restarts)
    assert code == expected
    assert cluster.lines("scontrol") == ["requeue 7"] * queued
    assert ("queued again for attempt" in errors) == queued


def test_slurm_sigterm_reaches_every_task(cluster):
    child = cluster.begin(*batch(cluster))
    try:
        for task in (0, 1):
            cluster.await_note(f"words.{task}.0")
        time.sleep(0.2)
        child.send_signal(signal.SIGTERM)  # as --signal=B:TERM@120 does, to the batch shell alone
        child.communicate(timeout=30)
    finally:
        launching.end(child)
    assert child.returncode == exits.PREEMPTED
    assert cluster.notes("told.*") == ["told.0.0", "told.1.0"]
    assert cluster.lines("scontrol") == ["requeue 7"]


# TPU slices.

# Answers from files of the stage: `states` (one a line; the last stays), and runs commands here.
GCLOUD = """#!/bin/bash
printf '%s\\n' "$*" >>"$STAGE/gcloud"
case "$*" in
  *" describe "*)
    state=$(head -n 1 "$STAGE/states")
    [ "$(wc -l <"$STAGE/states")" = 1 ] || sed -i 1d "$STAGE/states"
    [ "$state" != BROKEN ] || { echo "ERROR: network" >&2; exit 1; }
    [ "$state" != NONE ] || { echo "ERROR: NOT_FOUND: no such resource" >&2; exit 1; }
    echo "$state" ;;
  *" scp "*)
    mkdir -p "$STAGE/home" && cp "$5" "$STAGE/home/perceiver.tar.gz" ;;
  *" ssh "*)
    for word in "$@"; do case $word in --command=*) command=${word#*=} ;; esac; done
    case $command in
      *setup.sh*)
        cd "$STAGE/home" && ${command%% && bash*}
        mkdir -p perceiver && tar -xzf perceiver.tar.gz -C perceiver
        mkdir -p perceiver/.venv/bin && cp "$STAGE/bin/python" perceiver/.venv/bin/ ;;
      *) cd "$STAGE/home" && exec bash -c "$command" ;;
    esac ;;
esac
"""


@pytest.fixture
def cloud(stage):
    if shutil.which("git") is None or not (ROOT / ".git").exists():
        pytest.skip("needs git, and the history of this checkout")
    stage.program("gcloud", GCLOUD)
    (stage.folder / "states").write_text("PROVISIONING\nACTIVE\n")
    return stage


def verbs(stage):
    """What gcloud was asked for, in order, without the questions for the state."""
    found = [line.split()[3] for line in stage.lines("gcloud")]
    return [verb for verb in found if verb != "describe"]


def test_tpu_dry_run(stage):
    code, out, _ = stage.run(
        *POD_FULL, "--project=p", "--nodes=2", "--spot", "--dry-run", "--", *WORDS
    )
    assert code == 0
    lines = out.splitlines()
    assert lines[0] == (
        "gcloud compute tpus queued-resources create pod --zone=us-x --project=p --node-count=2 "
        "--node-prefix=pod --accelerator-type=v5litepod-64 "
        "--runtime-version=v2-alpha-tpuv5-lite --spot"
    )
    assert "archive --format=tar.gz" in lines[2]
    assert [line.split()[4] for line in lines if " ssh " in line] == ["ssh"] * 4
    assert [line.split()[5] for line in lines if " ssh " in line] == ["pod-0", "pod-1"] * 2
    assert lines[-1].endswith("queued-resources delete pod --zone=us-x --project=p --force --quiet")
    assert "--node-id=pod" in stage.run(*POD_FULL, "--dry-run", "--", *WORDS)[1]


def test_tpu_from_asking_to_giving_back(cloud):
    cloud.play(0, 0, "echo $PERCEIVER_REVISION >$STAGE/revision; exit 75")
    cloud.play(0, 1, "exit 0")
    code, _, errors = cloud.run(*POD_FULL, "--pause=0", "--", *WORDS)
    assert code == 0, errors
    assert verbs(cloud) == ["create", "scp", "ssh", "ssh", "ssh", "delete"]
    assert cloud.lines("words.0.1") == ["-m", "train", *WORDS]
    # What runs there is the commit, whole, and says which.
    assert (cloud.folder / "home" / "perceiver" / "train" / "exits.py").is_file()
    head = subprocess.run(
        ["git", "rev-parse", "HEAD"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=30,
        check=True,
    )
    assert cloud.lines("revision") == [head.stdout.strip()]


def test_tpu_a_slice_that_went_away_is_asked_for_again(cloud):
    (cloud.folder / "states").write_text("ACTIVE\nSUSPENDED\nACTIVE\n")
    cloud.play(0, 0, "exit 1")  # whatever it ended with: the machines are gone
    cloud.play(0, 1, "exit 0")
    code, _, errors = cloud.run(*POD_FULL, "--pause=0", "--", *WORDS)
    assert code == 0, errors
    life = ["create", "scp", "ssh", "ssh"]
    assert verbs(cloud) == [*life, "delete", *life, "delete"]


def test_tpu_gcloud_without_an_answer_is_no_reason_to_give_a_slice_up(cloud):
    (cloud.folder / "states").write_text("ACTIVE\nBROKEN\n")
    cloud.play(0, 0, "exit 76")
    cloud.play(0, 1, "exit 0")
    code, _, _ = cloud.run(*POD_FULL, "--pause=0", "--keep", "--", *WORDS)
    assert code == 0
    assert not any(" delete " in line for line in cloud.lines("gcloud"))


def test_tpu_an_error_is_final_and_the_slice_goes_back(cloud):
    cloud.play(0, 0, "exit 1")
    code, _, _ = cloud.run(*POD_FULL, "--pause=0", "--", *WORDS)
    assert code == 1
    assert cloud.notes("words.*") == ["words.0.0"]
    assert " delete " in cloud.lines("gcloud")[-1]


def test_tpu_a_request_that_failed_is_told(cloud):
    (cloud.folder / "states").write_text("ACCEPTED\nFAILED\n")
    code, _, errors = cloud.run(*POD_FULL, "--pause=0", "--", *WORDS)
    assert code == 2
    assert "pod is FAILED and will not become ACTIVE" in errors


def test_tpu_sigterm_saves_and_leaves_the_slice(cloud):
    child = cloud.begin(*POD_FULL, "--pause=0", "--", *WORDS)
    try:
        cloud.await_note("words.0.0")
        time.sleep(0.2)
        child.send_signal(signal.SIGTERM)
        _, errors = child.communicate(timeout=30)
    finally:
        launching.end(child)
    assert child.returncode == exits.PREEMPTED
    assert "pod stays" in errors
    assert cloud.notes("told.*") == ["told.0.0"]
    assert not any(" delete " in line for line in cloud.lines("gcloud"))


# Kubernetes.


def manifest(*options, accelerator="gpu"):
    kind = [f"--accelerator={accelerator}", "--name=run", "--image=i:1", "--hosts=4", "--devices=8"]
    parsed, words = jobset.parse([*kind, *options, "--", *WORDS])
    return yaml.safe_load(jobset.render(parsed, words))


def pod_of(made):
    (job,) = made["spec"]["replicatedJobs"]
    return job["template"]["spec"]["template"]["spec"]


def test_kubernetes_dry_run_is_the_manifest(stage):
    code, out, _ = stage.run(*KUBERNETES, "--dry-run", "--", *WORDS)
    assert code == 0
    assert yaml.safe_load(out)["kind"] == "JobSet"
    assert "${" not in out


def test_kubernetes_applies_it(stage):
    stage.program("kubectl", '#!/bin/sh\necho "$@" >"$STAGE/kubectl"\ncat >"$STAGE/applied"\n')
    assert stage.run(*KUBERNETES, "--", *WORDS)[0] == 0
    assert stage.lines("kubectl") == ["apply --filename=-"]
    assert yaml.safe_load("\n".join(stage.lines("applied")))["metadata"]["name"] == "run"


def test_kubernetes_gpus():
    made = manifest("--grace=33", "--attempts=5", "--port=99")
    assert made["apiVersion"] == "jobset.x-k8s.io/v1alpha2"
    (job,) = made["spec"]["replicatedJobs"]
    assert job["template"]["spec"]["completions"] == job["template"]["spec"]["parallelism"] == 4
    assert job["template"]["spec"]["completionMode"] == "Indexed"
    pod = pod_of(made)
    (container,) = pod["containers"]
    # Variables of the container, which Kubernetes puts in the place of $(...).
    assert container["args"] == [
        *WORDS,
        *("--coordinator=$(COORDINATOR):99", "--processes=4", "--process=$(PROCESS)"),
    ]
    assert {variable["name"] for variable in container["env"]} == {"COORDINATOR", "PROCESS"}
    assert made["spec"]["coordinator"]["replicatedJob"] == job["name"] == "train"
    assert made["spec"]["network"]["enableDNSHostnames"] is True
    assert container["resources"]["limits"] == {"nvidia.com/gpu": 8}
    assert pod["terminationGracePeriodSeconds"] == 33
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert made["spec"]["failurePolicy"]["maxRestarts"] == 4


def test_kubernetes_errors_are_final_and_the_rest_restarts():
    made = manifest()
    (job,) = made["spec"]["replicatedJobs"]
    spec = job["template"]["spec"]
    (rule,) = spec["podFailurePolicy"]["rules"]
    assert rule["action"] == "FailJob"
    assert rule["onExitCodes"]["containerName"] == pod_of(made)["containers"][0]["name"]
    assert not {exits.PREEMPTED, exits.HUNG} & set(rule["onExitCodes"]["values"])
    assert spec["backoffLimit"] == 0
    assert pod_of(made)["restartPolicy"] == "Never"  # podFailurePolicy asks for it
    final, again = made["spec"]["failurePolicy"]["rules"]
    assert (final["action"], final["onJobFailureReasons"]) == ("FailJobSet", ["PodFailurePolicy"])
    assert again["action"] == "RestartJobSet"
    assert made["spec"]["failurePolicy"]["restartStrategy"] == "BlockingRecreate"


def test_kubernetes_tpus_find_each_other():
    options = ["--tpu=tpu-v5-lite-podslice", "--topology=4x8", "--slices=2", "--root", "--spot"]
    made = manifest(*options, accelerator="tpu")
    pod = pod_of(made)
    (container,) = pod["containers"]
    assert container["args"] == list(WORDS)
    assert container["resources"]["limits"] == {"google.com/tpu": 8}
    assert pod["nodeSelector"] == {
        "cloud.google.com/gke-tpu-accelerator": "tpu-v5-lite-podslice",
        "cloud.google.com/gke-tpu-topology": "4x8",
        "cloud.google.com/gke-spot": "true",
    }
    assert made["spec"]["replicatedJobs"][0]["replicas"] == 2
    assert "alpha.jobset.sigs.k8s.io/exclusive-topology" in made["metadata"]["annotations"]
    assert pod["securityContext"] == {}


def test_kubernetes_a_claim_is_mounted():
    kind = ["--accelerator=gpu", "--name=run", "--image=i:1", "--hosts=1", "--devices=1"]
    words = ["--config=x", "--workdir=/runs/a"]
    parsed, words = jobset.parse([*kind, "--claim=disk", "--", *words])
    pod = pod_of(yaml.safe_load(jobset.render(parsed, words)))
    mounts = {mount["name"]: mount["mountPath"] for mount in pod["containers"][0]["volumeMounts"]}
    assert mounts == {"shm": "/dev/shm", "runs": "/runs"}
    assert {volume["name"] for volume in pod["volumes"]} == mounts.keys()


# The image and the environment.


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
