"""The server: what it answers, and one sentence for each bad request."""

import json
import re

import numpy as np
import pytest
from starlette.testclient import TestClient

from seq2seq.swipe.serve.app import PAGE, make_app
from seq2seq.swipe.serve.requests import MAX_BYTES, MAX_MILLISECONDS, MAX_POINTS
from tests.seq2seq.swipe.serve.stand_in import QWERTY, StandIn, path

JSON = {"content-type": "application/json"}
HELLO = path("hello", QWERTY) * QWERTY.key_width
GOOD = {
    "model": "tiny",
    "layout": "qwerty",
    "lexicon": None,
    "x": HELLO[:, 0].tolist(),
    "y": HELLO[:, 1].tolist(),
    "t": [0, 200, 400, 500, 700],
}


class Broken(StandIn):
    def predict(self, *args: object, **kwargs: object) -> None:
        raise RuntimeError("a secret of the depths")


@pytest.fixture(scope="module")
def client():
    app = make_app({"tiny": StandIn(), "broken": Broken()})
    with TestClient(app, base_url="http://127.0.0.1:8000", raise_server_exceptions=False) as client:
        yield client


def refused(response, status=400) -> str:
    """The sentence of a refusal."""
    assert response.status_code == status
    assert set(response.json()) == {"error"}
    sentence = response.json()["error"]
    assert re.fullmatch(r"[A-Z][^\n]{10,400}\.", sentence), sentence
    return sentence


def test_a_trace_gives_suggestions(client):
    answer = client.post("/api/predict", json=GOOD).json()
    best = answer["suggestions"][0]
    assert (best["word"], best["displayed"]) == ("hello", "hello")
    assert len(answer["suggestions"]) == 4
    shares = [suggestion["probability"] for suggestion in answer["suggestions"]]
    assert shares == sorted(shares, reverse=True)
    assert 0 < sum(shares) <= 1 + 1e-6
    assert len(answer["points"]) == 22  # 700 ms at 30 points per second, and the first one
    assert set(answer["posterior"]) == set(QWERTY.alphabet)
    assert {len(weights) for weights in answer["posterior"].values()} == {22}
    np.testing.assert_allclose(answer["points"][-1], HELLO[-1], atol=0.1)
    assert answer["posterior"]["h"][0] > 0.7  # where the trace begins
    assert answer["resident_mib"] > 1


def test_the_displayed_form_is_shown(client):
    x, y = (path("dont", QWERTY) * QWERTY.key_width).T.tolist()
    answer = client.post("/api/predict", json={**GOOD, "x": x, "y": y, "t": [0, 300, 600, 900]}).json()
    best = answer["suggestions"][0]
    assert (best["word"], best["displayed"]) == ("dont", "don't")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model": "tinny"}, "did you mean 'tiny'"),
        ({"model": 3}, "'model'.*known name; got 3"),
        ({"model": ["tiny"]}, "'model'.*known name"),
        ({"layout": "qwertz"}, "did you mean 'qwerty'"),
        ({"layout": None}, "'layout'.*known name; got None"),
        ({"lexicon": "eng"}, "did you mean 'en'"),
        ({"lexicon": ""}, "'lexicon'.*known name"),
        ({"lexicon": "x" * 10_000}, "'lexicon'.*known name; got 'xxx"),
        ({"x": []}, f"'x'.*1 to {MAX_POINTS} numbers; got 0"),
        ({"x": [0] * (MAX_POINTS + 1)}, f"'x'.*1 to {MAX_POINTS} numbers; got {MAX_POINTS + 1}"),
        ({"x": "12345"}, "'x'.*list of.*got '12345'"),
        ({"x": {"0": 1}}, "'x'.*list of"),
        ({"y": [1, 2, 3, 4]}, "equal lengths; got 5, 4 and 5"),
        ({"y": [1, 2, 3, 4, None]}, "'y'.*finite numbers; got None at 4"),
        ({"y": [1, 2, 3, 4, True]}, "'y'.*finite numbers; got True at 4"),
        ({"y": [1, 2, 3, 4, "5"]}, "'y'.*finite numbers; got '5' at 4"),
        ({"y": [1, 2, [3], 4, 5]}, r"'y'.*finite numbers; got \[3\] at 2"),
        ({"y": [1, 2, 10**400, 4, 5]}, "'y'.*finite numbers; got 1000.* at 2"),
        ({"x": [0, 0, 0, 0, 721]}, "'x'.*from -360 to 720; got 721 at 4"),
        ({"y": [-187, 0, 0, 0, 0]}, "'y'.*from -186 to 372; got -187 at 0"),
        ({"t": [0, 1, 2, 1, 3]}, "'t'.*not decrease; got 1 after 2"),
        ({"t": [-1, 1, 2, 3, 4]}, "'t'.*from 0 to 30000; got -1 at 0"),
        ({"t": [0, 1, 2, 3, MAX_MILLISECONDS + 1]}, "'t'.*from 0 to 30000; got 30001 at 4"),
        ({"z": [1]}, "known keys only; got 'z'"),
        ({"lexicons": "en"}, "did you mean 'lexicon'"),
    ],
)
def test_a_bad_request_is_one_sentence(client, change, said):
    assert re.search(said, refused(client.post("/api/predict", content=json.dumps({**GOOD, **change}), headers=JSON)))


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (b"", "strict JSON; got 0 bytes"),
        (b"{", "strict JSON"),
        (b"\xff\xfe", "strict JSON"),
        (b"[" * 100_000, "strict JSON"),
        (b'{"x": ' * 20_000, "strict JSON"),
        (b"null", "JSON object; got None"),
        (b"[1]", r"JSON object; got \[1\]"),
        (b"{}", "'model'.*is required"),
        (json.dumps({**GOOD, "x": [1, 2, 3, 4, float("nan")]}).encode(), "strict JSON"),
        (json.dumps({**GOOD, "x": [1, 2, 3, 4, float("inf")]}).encode(), "strict JSON"),
        (json.dumps(GOOD).replace("700]", "1e999]").encode(), "'t'.*finite numbers|strict JSON"),
    ],
)
def test_a_bad_body_is_one_sentence(client, body, said):
    assert re.search(said, refused(client.post("/api/predict", content=body, headers=JSON)))


@pytest.mark.parametrize("missing", GOOD)
def test_a_missing_key_is_named(client, missing):
    given = {key: value for key, value in GOOD.items() if key != missing}
    assert f"Key {missing!r} of the request is required" in refused(client.post("/api/predict", json=given))


@pytest.mark.parametrize("content_type", ["text/plain", "application/x-www-form-urlencoded", "", "application/jsonp"])
def test_only_json_is_read(client, content_type):
    """Forms of other sites send what browsers let pass without asking: none of it is JSON."""
    response = client.post("/api/predict", content=json.dumps(GOOD), headers={"content-type": content_type})
    assert "Content-Type" in refused(response)
    with_charset = {"content-type": "Application/JSON; charset=utf-8"}
    assert client.post("/api/predict", content=json.dumps(GOOD), headers=with_charset).status_code == 200


def test_a_large_body_is_refused_before_it_is_read(client):
    sent = []

    def pieces():
        for _ in range(64):
            sent.append(1)
            yield b" " * (MAX_BYTES // 4)

    for content in (b" " * (MAX_BYTES + 1), pieces()):
        sentence = refused(client.post("/api/predict", content=content, headers=JSON), 413)
        assert str(MAX_BYTES) in sentence
    largest = json.dumps(GOOD).ljust(MAX_BYTES)
    assert client.post("/api/predict", content=largest, headers=JSON).status_code == 200


def test_the_most_points_fit_into_a_body():
    numbers = [-12345.6789] * MAX_POINTS
    assert len(json.dumps({**GOOD, "x": numbers, "y": numbers, "t": numbers})) < MAX_BYTES


@pytest.mark.parametrize(
    ("method", "address", "status"),
    [("GET", "/api/predict", 404), ("GET", "/nothing", 404), ("POST", "/", 405), ("GET", "/../app.py", 404)],
)
def test_other_requests_are_refused(client, method, address, status):
    refused(client.request(method, address), status)


def test_an_error_of_the_server_shows_nothing_of_it(client):
    response = client.post("/api/predict", json={**GOOD, "model": "broken"})
    assert refused(response, 500) == "The server failed; its log says why."


@pytest.mark.parametrize(
    ("listens_on", "host", "allowed"),
    [
        ("127.0.0.1", "127.0.0.1:8000", True),
        ("127.0.0.1", "localhost", True),
        ("127.0.0.1", "LOCALHOST:1", True),
        ("127.0.0.1", "[::1]:8000", True),
        ("127.0.0.1", "evil.example", False),
        ("127.0.0.1", "evil.example:8000", False),
        ("127.0.0.1", "localhost.evil.example", False),
        ("127.0.0.1", "127.0.0.1:80@evil.example", False),
        ("127.0.0.1", "", False),
        ("127.0.0.1", "192.168.0.7", False),
        ("192.168.0.7", "192.168.0.7:8000", True),
        ("192.168.0.7", "192.168.0.8:8000", False),
        ("fe80::1", "[fe80::1]:8000", True),
        ("0.0.0.0", "anything.example", True),
        ("::", "anything.example", True),
    ],
)
def test_only_names_of_the_server_are_answered(listens_on, host, allowed):
    client = TestClient(make_app({"tiny": StandIn()}, listens_on))
    response = client.get("/api/choices", headers={"host": host})
    if allowed:
        assert response.status_code == 200
    else:
        assert "Host header" in refused(response)


def test_choices_have_all_that_the_page_draws(client):
    found = client.get("/api/choices").json()
    assert list(found["models"]) == ["tiny", "broken"]
    layout = found["models"]["tiny"]["layouts"]["qwerty"]
    assert (layout["width"], layout["height"], len(layout["keys"])) == (360, 186, 26)
    assert layout["keys"][0] == {"label": "q", "x": 0, "y": 0, "width": 36, "height": 62}
    assert found["models"]["tiny"]["lexicons"] == ["en"]
    assert found["limits"] == {"points": MAX_POINTS, "milliseconds": MAX_MILLISECONDS}


@pytest.mark.parametrize("address", ["/", "/style.css", "/page.js", "/icon.svg", "/api/choices", "/nothing"])
def test_every_answer_is_confined_to_this_server(client, address):
    headers = client.get(address).headers
    policy = headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert headers["x-content-type-options"] == "nosniff"
    assert not [name for name in headers if name.startswith("access-control")]


def test_the_page_needs_nothing_from_elsewhere():
    for file in PAGE.iterdir():
        text = file.read_text().replace("http://www.w3.org/2000/svg", "")
        assert not re.search(r"https?:|//[a-z]+\.|\son\w+=|<script>|<style|style=", text), file.name
