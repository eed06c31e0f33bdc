import json
import re
import socket
import threading
from dataclasses import dataclass
from http.client import HTTPConnection

import numpy as np
import pytest
import uvicorn

from cellseg.runtime.view.scene import Scene
from cellseg.runtime.view.server import LARGEST_BODY, PAGE, application, new_token


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    content: bytes

    @property
    def text(self):
        return self.content.decode()

    def json(self):
        return json.loads(self.content)


class Client:
    """Asks a server that really listens; paths are below the token, unless they begin with a slash."""

    def __init__(self, port):
        self.port = port

    def get(self, path, headers=None, method="GET", content=None):
        connection = HTTPConnection("127.0.0.1", self.port, timeout=30)
        try:
            connection.request(
                method, path if path.startswith("/") else f"/token/{path}", content, headers or {}
            )
            answer = connection.getresponse()
            return Answer(answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read())
        finally:
            connection.close()

    def post(self, path, content):
        return self.get(path, method="POST", content=content)


@pytest.fixture(scope="module")
def client(finished):
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen()
    with Scene(finished) as first, Scene(finished) as second, listener:
        config = uvicorn.Config(application([first, second], "token"), log_level="error", lifespan="off")
        server = uvicorn.Server(config)
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        yield Client(listener.getsockname()[1])
        server.should_exit = True
        thread.join()


def test_the_page_and_all_that_it_loads(client):
    page = client.get("")
    assert page.status == 200
    wanted = re.findall(r'(?:src|href)="(page/[^"]+)"', page.text)
    scripts = [path.read_text(encoding="utf-8") for path in PAGE.glob("*.js")]
    wanted += [f"page/{name}" for text in scripts for name in re.findall(r'from "\./([^"]+)"', text)]
    assert len(wanted) >= 5
    for name in wanted:
        assert client.get(name).status == 200, name
    # Nothing comes from elsewhere, by the page or by leave of the browser.
    assert not re.search(r'(?:src|href)="(?:https?:)?//', page.text)
    assert "default-src 'none'" in page.headers["content-security-policy"]
    assert page.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "path",
    ["/", "/page/view.js", "/nokent/", "/scenes.json", "/token/page/..%2Fserver.py", "/token/page/none"],
)
def test_nothing_without_the_token_or_besides_the_page(client, path):
    assert client.get(path).status == 404


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "192.168.1.5:8000"])
def test_only_the_loopback_address_is_answered(client, host):
    assert client.get("scenes.json", headers={"host": host}).status == 400


def test_tokens_differ():
    assert len({new_token() for _ in range(50)}) == 50
    assert len(new_token()) >= 24


def test_scenes(client):
    first, second = client.get("scenes.json").json()
    assert first == second
    assert (first["count"], first["width"], first["zooms"], first["missing"]) == (6, 1200, 11, None)


def test_tiles(client):
    assert client.get("scene/0/picture/11/0_0.jpg").headers["content-type"] == "image/jpeg"
    assert client.get("scene/1/cells/11/2_1.png?by=area&min_score=0.2").headers["content-type"] == "image/png"
    assert client.get("scene/0/plane/mask/9/0_0.png").content.startswith(b"\x89PNG")
    assert client.get("scene/0/plane/nothing/9/0_0.png").status == 404


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("scene/2/cells/11/0_0.png", "there is no result 2"),
        ("scene/0/cells/12/0_0.png", "zoom 12: the picture has 0 to 11"),
        ("scene/0/cells/11/9_9.png", "tile 9, 9 at zoom 11 lies outside of the picture"),
        ("scene/0/cells/11/0_0.png?min_score=a", "min_score is 'a'; wanted a number"),
        ("scene/0/cells/11/0_0.png?by=size", "discs.tif has no column 'size'"),
        ("scene/0/cell.json?x=1", "y is ''; wanted a number"),
        ("scene/0/cell.json?label=1e300", "label is '1e300'; wanted a number"),
        ("scene/0/uncertain.json?rank=nan", "rank is 'nan'; wanted a number"),
    ],
)
def test_one_line_for_what_is_wrong(client, path, said):
    answer = client.get(path)
    assert answer.status == 400
    assert answer.json() == {"error": said}


@pytest.mark.parametrize(
    "path",
    [
        f"scene/{'9' * 5000}/summary.json",
        f"scene/0/picture/{'9' * 5000}/0_0.jpg",
        f"scene/0/picture/0/{'9' * 5000}_0.jpg",
        f"scene/0/cells/0/0_{'9' * 4000}.png",
        f"scene/0/cell.json?label={'9' * 5000}",
        f"scene/0/summary.json?colour={'9' * 5000}",
        f"scene/0/summary.json?by={'a' * 5000}",
        f"scene/0/plane/{'a' * 5000}/0/0_0.png",
        "page/..%2f..%2fserver.py",
        "page/%2e%2e/server.py",
        "page/..%5cserver.py",
        "page/%00",
    ],
)
def test_addresses_that_nobody_has_are_refused_in_short(client, path):
    answer = client.get(path)
    assert answer.status in (400, 404)
    assert len(answer.text) < 300


def test_summary_follows_the_limits(client):
    whole = client.get("scene/0/summary.json?by=area").json()
    assert whole["shown"] == whole["count"] == sum(whole["scores"]) == 6
    assert whole["scale"][0] < whole["scale"][1]
    assert client.get("scene/0/summary.json?min_area=1000").json()["shown"] == 2


def test_a_cell_by_place_and_number(client):
    cell = client.get("scene/0/cell.json?x=400&y=120").json()
    assert cell["area"] == pytest.approx(np.pi * 20**2, rel=0.1)
    assert client.get(f"scene/0/cell.json?label={cell['label']}").json() == cell
    assert client.get("scene/0/cell.json?x=5&y=5").json() is None
    assert client.get("scene/0/cell.json?x=-5&y=5").json() is None


def test_the_least_certain_cells_in_turn(client):
    found = [client.get(f"scene/0/uncertain.json?rank={rank}").json() for rank in range(7)]
    scores = [answer["cell"]["score"] for answer in found]
    assert scores[:6] == sorted(scores[:6])
    assert found[6]["rank"] == 0
    assert client.get("scene/0/uncertain.json?rank=-1").json()["rank"] == 5
    assert client.get("scene/0/uncertain.json?rank=0&min_score=2").json() is None


def test_corrections_come_back_as_a_file(client):
    answer = client.post("scene/0/corrections.geojson", content=json.dumps({"field": [0, 0, 600, 300]}))
    assert answer.headers["content-disposition"] == 'attachment; filename="discs.0_0.geojson"'
    assert len(answer.json()["features"]) == 3
    assert client.get("scene/0/corrections.geojson").status == 405


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ("{}", 400, "field: Field required"),
        ('{"field": [0, 0, 9, 9], "deleted": ["x"]}', 400, "deleted.0: Input should be a valid integer"),
        ('{"field": [0, 0, 99999, 9]}', 400, "does not lie in a picture"),
        ("x" * (LARGEST_BODY + 1), 413, ""),
        ('{"field": [0, 0, 9, 9], "merged": [[99999999999999999999, 1]]}', 400, "merged.0.0: "),
        ('{"field": [0, 0, 40, 40], "drawn": [[[1e300, 0], [0, 1e300], [5, 5]]]}', 200, "features"),
        ("[" * 100_000, 400, "the corrections: "),
    ],
)
def test_corrections_that_are_none(client, body, status, said):
    answer = client.post("scene/0/corrections.geojson", content=body)
    assert answer.status == status
    assert said in answer.text
