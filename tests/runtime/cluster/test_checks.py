import copy

import pytest
from distributed.comm import CommClosedError

from cellseg.runtime.cluster.checks import check_protocol, patiently
from cellseg.runtime.errors import OutputError, UsageError

PACKAGES = {"python": "3.11.7.final.0", "dask": "1", "distributed": "1", "msgpack": "1", "cloudpickle": "1"}
SAME = {
    "client": {"packages": PACKAGES | {"numpy": "2.0"}},
    "scheduler": {"packages": PACKAGES},
    "workers": {"tcp://a:1": {"packages": PACKAGES | {"python": "3.11.9.final.0", "numpy": "2.1"}}},
}


def test_a_worker_that_is_lost_while_it_is_asked(monkeypatch):
    monkeypatch.setattr("cellseg.runtime.cluster.checks.time.sleep", lambda seconds: None)
    answers = [CommClosedError("reset by peer"), {"tcp://b:1": "0.2"}]

    def ask():
        if isinstance(answer := answers.pop(0), Exception):
            raise answer
        return answer

    assert patiently(ask) == {"tcp://b:1": "0.2"}
    answers += [CommClosedError("reset by peer")] * 9
    with pytest.raises(CommClosedError):
        patiently(ask)
    answers[:] = [OutputError("no disk"), {}]
    with pytest.raises(OutputError):
        patiently(ask)


def test_what_messages_are_not_made_with_may_differ():
    check_protocol(SAME)


@pytest.mark.parametrize(
    ("where", "package", "value", "said"),
    [
        ("scheduler", "dask", "2", "the scheduler has dask 2 for 1 here; install the same on both"),
        ("tcp://a:1", "python", "3.12.1.final.0", "worker tcp://a:1 has Python 3.12 for 3.11 here"),
        ("tcp://a:1", "cloudpickle", None, "worker tcp://a:1 has cloudpickle None for 1 here"),
    ],
)
def test_other_releases_are_one_line(where, package, value, said):
    found = copy.deepcopy(SAME)
    (found["workers"].get(where) or found[where])["packages"][package] = value
    with pytest.raises(UsageError, match="install the same on both") as caught:
        check_protocol(found)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)
