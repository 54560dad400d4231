"""Who starts as one of several, and what is said when the addresses cannot be."""

import jax
import pytest

from train.devices import cluster

SLURM = {
    "SLURM_JOB_ID": "7",
    "SLURM_STEP_NODELIST": "node[001-002]",
    "SLURM_NTASKS": "2",
    "SLURM_PROCID": "0",
    "SLURM_LOCALID": "0",
}
OPEN_MPI = {"OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://10.0.0.1:3", "OMPI_COMM_WORLD_SIZE": "2"}
TPU = {"TPU_ML_PLATFORM": "JAX"}


@pytest.mark.parametrize(
    ("environment", "method"),
    [
        ({}, None),
        (SLURM, "slurm"),
        (SLURM | {"SLURM_NTASKS": "1"}, None),
        # In a batch script outside of srun: the job has tasks, but this is none of them.
        ({k: v for k, v in SLURM.items() if k != "SLURM_STEP_NODELIST"}, None),
        (OPEN_MPI, "ompi"),
        (OPEN_MPI | {"OMPI_COMM_WORLD_SIZE": "1"}, None),
        (TPU, "tpu"),
        (TPU | {"TPU_SKIP_MDS_QUERY": "1"}, None),  # libtpu, but no chips
        (TPU | {"JAX_PLATFORMS": "cpu"}, None),
    ],
)
def test_a_scheduler_is_recognised(environment, method):
    assert cluster.detect(environment) == method


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("10.0.0.1:80", None, 1), "--processes missing"),
        ((None, 2, None), "--coordinator, --process missing"),
        (("10.0.0.1", 2, 0), "is not HOST:PORT"),
        (("10.0.0.1:99999", 2, 0), "is not HOST:PORT"),
        (("10.0.0.1:80", 2, 2), r"--process=2 must lie in 0\.\.1"),
    ],
)
def test_addresses_that_cannot_be_are_refused(words, message):
    with pytest.raises(ValueError, match=message):
        cluster.join(*words)


def test_one_process_joins_nobody(monkeypatch):
    monkeypatch.setattr(jax.distributed, "initialize", None)  # would be an error to call
    for name, value in SLURM.items():
        monkeypatch.setenv(name, value)
    assert cluster.join(processes=1) is None
    monkeypatch.setenv("SLURM_NTASKS", "1")
    assert cluster.join() is None


def test_others_that_do_not_come_are_told(monkeypatch):
    def initialize(*words, **options):
        assert words == ("10.0.0.1:80", 2, 1)
        assert options["cluster_detection_method"] == "deactivate"
        raise RuntimeError("DEADLINE_EXCEEDED: Barrier timed out\nmore")

    monkeypatch.setattr(jax.distributed, "initialize", initialize)
    message = (
        "process 1 on .* could not connect to the others at 10.0.0.1:80 within 300 s.*DEADLINE"
    )
    with pytest.raises(ConnectionError, match=message):
        cluster.join("10.0.0.1:80", 2, 1)
