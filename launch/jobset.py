"""Fills in `launch/jobset.yaml` and hands it to kubectl; needs the standard library only.

    python launch/jobset.py --name=run-a --image=REGISTRY/perceiver:TAG --hosts=4 \
        --accelerator=gpu --devices=8 --dry-run -- --config=... --workdir=gs://BUCKET/run-a

On GPUs the processes get the coordinator's address; on TPUs (GKE) JAX discovers the other processes
itself, and `--tpu` and `--topology` choose the slice. Without object storage, `--claim` mounts a
persistent volume claim (ReadWriteMany) at /runs. With `--dry-run` the manifest is only printed. The
image is built from `launch/Containerfile`.
"""

import argparse
import json
import pathlib
import shutil
import string
import subprocess
import sys

TEMPLATE = pathlib.Path(__file__).with_name("jobset.yaml")
RESOURCES = {"gpu": "nvidia.com/gpu", "tpu": "google.com/tpu"}
_TPU_LABELS = ("cloud.google.com/gke-tpu-accelerator", "cloud.google.com/gke-tpu-topology")
_USER = {"runAsNonRoot": True, "runAsUser": 1000, "fsGroup": 1000}  # of launch/Containerfile
_OURS = ("--coordinator=", "--processes=", "--process=")


def main() -> None:
    """Prints the manifest, or applies it."""
    options, words = parse(sys.argv[1:])
    manifest = render(options, words)
    if options.dry_run:
        print(manifest, end="")
        return
    if shutil.which("kubectl") is None:
        sys.exit("launch: kubectl is not on PATH; install it, or print the manifest with --dry-run")
    command = ["kubectl", "apply", "--filename=-"]
    sys.exit(subprocess.run(command, input=manifest, text=True, check=False).returncode)


def parse(arguments: list[str]) -> tuple[argparse.Namespace, list[str]]:
    """Returns the options and the words of `python -m train`, which stand behind `--`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--name", required=True, help="name of the JobSet")
    parser.add_argument("--namespace", default="default")
    parser.add_argument("--image", required=True)
    parser.add_argument("--accelerator", required=True, choices=RESOURCES)
    parser.add_argument(
        "--hosts", required=True, type=_count, help="number of Pods (TPU: per slice)"
    )
    parser.add_argument("--devices", required=True, type=_count, help="GPUs or TPU chips per host")
    parser.add_argument("--slices", default=1, type=_count, help="TPU: number of slices")
    parser.add_argument("--tpu", default="", help="TPU: type, such as tpu-v5-lite-podslice")
    parser.add_argument("--topology", default="", help="TPU: slice topology, such as 4x4")
    parser.add_argument("--attempts", default=20, type=_count, help="maximum number of starts")
    parser.add_argument(
        "--grace",
        default=120,
        type=_count,
        help="seconds that a Pod has to save before it is killed",
    )
    parser.add_argument("--port", default=12355, type=_count, help="port of the coordinator")
    parser.add_argument(
        "--service-account", default="default", help="service account that may write to --workdir"
    )
    parser.add_argument("--claim", default="", help="persistent volume claim to mount at /runs")
    parser.add_argument(
        "--root", action="store_true", help="run as root, where only root can open the devices"
    )
    parser.add_argument("--spot", action="store_true", help="GKE: use spot nodes")
    parser.add_argument("--dry-run", action="store_true", help="print the manifest and stop")
    own, words = _split(arguments)
    options = parser.parse_args(own)
    problem = _problem(options, words)
    if problem:
        parser.error(problem)
    return options, words


def render(options: argparse.Namespace, words: list[str]) -> str:
    """Returns the manifest as YAML."""
    annotations, selector, tolerations, ports = {}, {}, [], []
    volumes = [{"name": "shm", "emptyDir": {"medium": "Memory"}}]
    mounts = [{"name": "shm", "mountPath": "/dev/shm"}]  # through it workers hand on batches
    if options.accelerator == "tpu":
        selector = dict(zip(_TPU_LABELS, (options.tpu, options.topology), strict=True))
        # Each slice is a node pool: its Pods go to one, and no other's to the same.
        annotations["alpha.jobset.sigs.k8s.io/exclusive-topology"] = "cloud.google.com/gke-nodepool"
    else:
        words = [
            *words,
            f"--coordinator=$(COORDINATOR):{options.port}",
            f"--processes={options.hosts}",
            "--process=$(PROCESS)",
        ]
        ports = [{"containerPort": options.port}]
        tolerations.append({"key": RESOURCES["gpu"], "operator": "Exists", "effect": "NoSchedule"})
    if options.spot:
        selector["cloud.google.com/gke-spot"] = "true"
    if options.claim:
        volumes.append({"name": "runs", "persistentVolumeClaim": {"claimName": options.claim}})
        mounts.append({"name": "runs", "mountPath": "/runs"})
    values = {
        "name": options.name,
        "namespace": options.namespace,
        "annotations": annotations,
        "restarts": options.attempts - 1,
        "slices": options.slices,
        "hosts": options.hosts,
        "grace": options.grace,
        "service_account": options.service_account,
        "node_selector": selector,
        "tolerations": tolerations,
        "image": options.image,
        "words": words,
        "ports": ports,
        "limits": {RESOURCES[options.accelerator]: options.devices},
        "security": {} if options.root else _USER,
        "mounts": mounts,
        "volumes": volumes,
    }
    template = _Template(TEMPLATE.read_text(encoding="utf-8"))
    return template.substitute({name: json.dumps(value) for name, value in values.items()})


class _Template(string.Template):
    """Placeholders in braces only: Kubernetes has dollar signs of its own."""

    pattern = r"\$(?:(?P<escaped>\$)|(?P<named>(?!))|\{(?P<braced>[a-z_]+)\}|(?P<invalid>))"


def _split(arguments: list[str]) -> tuple[list[str], list[str]]:
    """Returns what stands before `--`, and behind it."""
    place = arguments.index("--") if "--" in arguments else len(arguments)
    return arguments[:place], arguments[place + 1 :]


def _problem(options: argparse.Namespace, words: list[str]) -> str | None:
    """Returns what does not fit together, and the remedy."""
    for prefix in ("--config=", "--workdir="):
        if not any(word.startswith(prefix) for word in words):
            return f"after --, give the arguments of python -m train; {prefix}... is missing"
    for word in words:
        if word.startswith(_OURS):
            return f"{word} is set by the launcher, differently on each host; leave it out"
        if "$(" in word:
            return f"{word}: Kubernetes would expand $(...); write $$(...)"
    if options.accelerator == "tpu" and not (options.tpu and options.topology):
        return "a TPU slice needs --tpu (tpu-v5-lite-podslice) and --topology (4x4)"
    if options.accelerator == "gpu" and (options.slices > 1 or options.tpu or options.topology):
        return "--slices, --tpu and --topology are for TPUs; for GPUs give --hosts"
    workdir = [word for word in words if word.startswith("--workdir=")][-1].partition("=")[2]
    if "://" not in workdir and not (options.claim and workdir.startswith("/runs")):
        return (
            f"--workdir={workdir} would be lost with the Pod: use object storage (gs://...), or a "
            "folder in /runs with --claim"
        )
    return None


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} must be an integer of at least 1")
    return int(text)


if __name__ == "__main__":
    main()
