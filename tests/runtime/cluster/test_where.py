import pytest

from cellseg.runtime.cluster.where import BatchSystem, Place, parse_place
from cellseg.runtime.errors import UsageError


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("local", Place(local=0)),
        ("local:4", Place(local=4)),
        ("tcp://head:8786", Place(address="tcp://head:8786")),
        ("tls://10.0.0.1:8786", Place(address="tls://10.0.0.1:8786")),
    ],
)
def test_places(text, place):
    assert parse_place(text) == place


@pytest.mark.parametrize(
    "text", ["", "local:0", "local:-1", "local:x", "head:8786", "http://head", "slurm", "local:"]
)
def test_what_is_no_place(text):
    with pytest.raises(UsageError, match=r"cluster=.*wanted"):
        parse_place(text)


def test_a_batch_system(tmp_path):
    file = tmp_path / "slurm.yml"
    file.write_text("system: slurm\njobs: 8\ncores: 4\ngpus: 1\nqueue: gpu\ndirectives: ['--exclusive']\n")
    assert parse_place(str(file)) == Place(
        batch=BatchSystem(system="slurm", jobs=8, cores=4, gpus=1, queue="gpu", directives=("--exclusive",))
    )


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("system: slurm\njobs: 8\nqeue: gpu\n", "unknown key 'qeue'; known are system, jobs"),
        ("jobs: 8\n", "system: field required"),
        ("system: slurm\njobs: many\n", "jobs: input should be a valid integer; found 'many'"),
        ("system: condor\njobs: 8\n", "system: input should be 'slurm', 'pbs', 'lsf' or 'sge'"),
        ("system: slurm\njobs: 0\n", "jobs: input should be greater than or equal to 1"),
        ("- a\n", r"holds \['a'\]; wanted keys"),
        ("a: [\n", "cannot be read"),
        ("x: &a [1]\ny: [*a, *a]\n" * 9000, "at most"),
    ],
)
def test_files_that_are_not_understood(tmp_path, text, said):
    file = tmp_path / "slurm.yml"
    file.write_text(text)
    with pytest.raises(UsageError, match=said) as caught:
        parse_place(str(file))
    assert len(str(caught.value)) < 600


def test_no_such_file():
    with pytest.raises(UsageError, match=r"none.yml: cannot be read: No such file"):
        parse_place("none.yml")
