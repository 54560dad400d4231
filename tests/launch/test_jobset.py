"""Kubernetes: the manifest, and a stub of `kubectl`."""

import importlib.util

import yaml

from tests.launch.stage import KUBERNETES, LAUNCH, WORDS
from train.guard import exit_codes

spec = importlib.util.spec_from_file_location("jobset", LAUNCH / "jobset.py")
jobset = importlib.util.module_from_spec(spec)
spec.loader.exec_module(jobset)


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
    assert not {exit_codes.PREEMPTED, exit_codes.HUNG} & set(rule["onExitCodes"]["values"])
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
