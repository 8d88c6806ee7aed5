"The service: who may ask what, how much, and that nothing it acknowledged is lost when it is killed."
import contextlib
import io
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
from PIL import Image

from facerec_nb.apps.commands import facerec_app, facerec_serve
from facerec_nb.core.files import InputError, read_image
from facerec_nb.faces.detection import WholeImage
from facerec_nb.pipeline.face_pipeline import FacePipeline, Faces
from facerec_nb.pipeline.gallery import Gallery
from toys import Colour, Five

service = pytest.importorskip("facerec_nb.apps.service", reason='pip install "facerec_nb[serve]"')
httpx = pytest.importorskip("httpx")
from fastapi.testclient import TestClient  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
KEYS = {role: f"{role}-key-that-is-long-enough" for role in service.ROLES}


def toy(): return FacePipeline(WholeImage(), Five(), Colour(), "m", threshold=0.9)


def png(colour):
    out = io.BytesIO()
    Image.fromarray(np.full((60, 60, 3), colour, np.uint8)).save(out, "PNG")
    return out.getvalue()


RED, GREEN = png((220, 80, 80)), png((90, 200, 90))


@pytest.fixture
def keys(tmp_path):
    (tmp_path/"keys").write_text("".join(f"{r} {k}\n" for r, k in KEYS.items()))
    (tmp_path/"keys").chmod(0o600)
    return tmp_path/"keys"


def client(g, keys=None, **cfg):
    made = service.Service(toy(), g, keys and service.read_keys(keys), service.ServeCfg(**cfg))
    return TestClient(service.build_service(made), base_url="http://127.0.0.1", raise_server_exceptions=False)


def key(role): return {"headers": {"x-api-key": KEYS[role]}}


def test_from_enrolment_to_a_name_and_back(place):
    with Gallery(place, model="m") as g:
        c = client(g)
        assert c.post("/identify", files={"photo": RED}).status_code == 409  # nobody is enrolled
        files = [("photos", ("a.png", RED)), ("photos", ("b.png", png((219, 80, 81)))), ("photos", ("c.png", RED))]
        assert c.post("/people/Ann", files=files[:2]).json() == dict(name="Ann", added=2, references=2)
        assert c.post("/people/Ann", files=files).json()["added"] == 0  # sent again
        bobby = "Robert'); DROP TABLE people; -- and/or ?k=1"
        assert c.post(f"/people/{quote(bobby, safe='')}", files={"photos": ("x.png", GREEN)}).json()["name"] == bobby
        said = c.post("/identify", files={"photo": GREEN}).json()["faces"]
        assert [(a["status"], a["name"]) for a in said] == [("known", bobby)]
        assert c.post("/verify", files={"a": RED, "b": GREEN}).json()["status"] == "different"
        assert c.get("/people").json() == {"Ann": 2, bobby: 1} and g.sources("Ann") == {"a.png", "b.png"}
        assert c.delete("/people/Ann").status_code == 200 and c.delete("/people/Ann").status_code == 404
        text = c.get("/metrics").text
        assert "facerec_people 1.0" in text and 'path="/identify",status="409"' in text


def test_each_role_may_what_it_may(keys):
    with Gallery(model="m") as g:
        g.add("Ann", np.eye(3, dtype=np.float32)[0])
        c = client(g, keys)
        asks = {("post", "/identify", "photo"): "ask", ("post", "/people/Bob", "photos"): "enrol",
                ("get", "/people", None): "admin", ("delete", "/people/Bob", None): "admin",
                ("get", "/metrics", None): "ask"}
        for (verb, path, field), least in asks.items():
            body = {"files": {field: RED}} if field else {}
            ask = lambda **how: getattr(c, verb)(path, **body, **how).status_code
            assert ask() == 401 and ask(headers={"x-api-key": "wrong"}) == 401, path
            for role in service.ROLES:
                allowed = service.ROLES.index(role) >= service.ROLES.index(least)
                assert ask(**key(role)) == (200 if allowed else 403), (path, role)
        assert c.get("/health").status_code == 200
        told = "".join(c.get(path, **key("ask")).text for path in ("/people", "/", "/openapi.json", "/metrics"))
        assert not any(k in told for k in KEYS.values())


def test_a_port_that_cannot_be_had_is_told_before_anything_is_loaded(tmp_path, capsys):
    with socket.create_server(("127.0.0.1", 0)) as s:
        for port, said in ((s.getsockname()[1], "cannot be used (Address already in use)"), (99999, "from 1 to 65535")):
            assert facerec_serve(str(tmp_path/"g.db"), port=port) == facerec_app(port=port) == 1
            err = capsys.readouterr().err
            assert err.count(f"--port {port} ") == err.count(said) == 2 == err.count("\n")


def test_only_this_machine_without_keys(keys, tmp_path):
    with Gallery(model="m") as g:
        c = client(g)
        assert c.get("/people").status_code == 200
        for headers in ({"origin": "http://evil.example"}, {"origin": "null"}, {"host": "evil.example"}):
            assert c.get("/people", headers=headers).status_code == 403
        with pytest.raises(InputError, match="without keys only this machine may ask"):
            service.run_service(service.Service(toy(), g), "0.0.0.0")
    assert facerec_serve(str(tmp_path/"g.db"), host="0.0.0.0") == 1 and not (tmp_path/"g.db").exists()
    for text in ("", "ask short", "owner " + "k"*30):
        keys.write_text(text)
        with pytest.raises(InputError, match="write a"): service.read_keys(keys)
    keys.chmod(0o644)
    with pytest.raises(InputError, match="chmod 600"): service.read_keys(keys)


def test_how_much_is_limited(keys):
    with Gallery(model="m") as g:
        g.add("Ann", np.eye(3, dtype=np.float32)[0])
        c = client(g, keys, per_minute=3, largest=5000, photos=2)
        ask = lambda role, data=RED: c.post("/identify", files={"photo": data}, **key(role)).status_code
        assert [ask("ask") for _ in range(5)] == [200]*3 + [429]*2 and ask("enrol") == 200
        assert ask("admin", b"x"*6000) == 413
        head = b'--x\r\nContent-Disposition: form-data; name="photo"; filename="a"\r\n\r\n'
        chunked = (part for part in (head, *[b"x"*1000]*100))
        form = {"headers": {"content-type": "multipart/form-data; boundary=x", **key("admin")["headers"]}}
        assert c.post("/identify", content=chunked, **form).status_code == 413
        files = [("photos", (f"{i}.png", RED)) for i in range(3)]
        assert c.post("/people/Bob", files=files, **key("enrol")).status_code == 413


def test_bad_requests_are_told_and_nothing_is_added():
    with Gallery(model="m") as g:
        c = client(g)
        for files, status in (({"photo": b""}, 422), ({"photo": b"no photograph"}, 422), ({"other": RED}, 422),
                              ({"photo": RED[:100]}, 422)):
            assert c.post("/identify", files=files).status_code == status
        assert c.post("/people/a%0Ab", files={"photos": ("a.png", RED)}).status_code in (404, 409)
        assert c.post("/people/Ann", files=[("photos", ("a.png", RED)), ("photos", ("b.png", b"x"))]).status_code == 422
        assert g.people() == {}


def test_an_answer_for_a_crowd_asks_a_server_little(database, monkeypatch):
    "What the owner has set, the size, the width, whether there is an index, and one question a face"
    import psycopg
    with Gallery(database, model="m") as g:
        g.add("Ann", np.eye(3, dtype=np.float32)[0])
        g.threshold, asked, pipe = 0.5, [], toy()
        face, execute = pipe(read_image(RED))[0], psycopg.Cursor.execute
        note = lambda cursor, sql, *args, **kwargs: asked.append(sql) or execute(cursor, sql, *args, **kwargs)
        monkeypatch.setattr(psycopg.Cursor, "execute", note)
        answers = pipe.identify(Faces([face]*12), g)
        assert len(answers) == 12 and answers[0].threshold == 0.5 and len(asked) <= 12 + 5
        g.threshold = 0.6
        assert g.threshold == 0.6


def test_an_error_of_this_side_tells_nothing(monkeypatch):
    with Gallery(model="m") as g:
        c = client(g)
        monkeypatch.setattr(FacePipeline, "__call__", lambda *a: 1/0)
        r = c.post("/identify", files={"photo": RED})
        assert r.status_code == 500 and "ZeroDivision" not in r.text and c.get("/health").status_code == 200


@pytest.mark.parametrize("at_once", [1, 2])
def test_too_many_do_not_wait(at_once):
    turns, seen = service.Turns(1, at_once), []

    def ask():
        try:
            with turns.turn(): time.sleep(0.3)
            seen.append(200)
        except service.HTTPException as e: seen.append(e.status_code)

    threads = [threading.Thread(target=ask) for _ in range(5)]
    for t in threads: t.start()
    for t in threads: t.join()
    assert sorted(seen) == [200]*(at_once + 1) + [503]*(4 - at_once)


def test_as_many_together_as_asked_or_as_there_are_cores(monkeypatch):
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    with Gallery(model="m") as g:
        most = lambda n: service.Service(toy(), g, cfg=service.ServeCfg(waiting=0, at_once=n)).turns
        for asked, many in ((None, 3), (1, 1), (5, 5)):
            with contextlib.ExitStack() as together:
                turns = most(asked)
                for _ in range(many): together.enter_context(turns.turn())
                with pytest.raises(service.HTTPException), turns.turn(): pass
        with pytest.raises(InputError, match="0 photographs at once: say 1 or more"): most(0)


@pytest.mark.parametrize("at_once,company,alone", [(2, 1, True), (2, 2, False), (1, 1, True), (1, 2, True)])
def test_networks_have_one_thread_in_company_only(monkeypatch, at_once, company, alone):
    used, turns, second = [], service.Turns(3, at_once), threading.Event()
    monkeypatch.setattr(service, "one_thread", lambda: used.append(1) or contextlib.nullcontext())

    def other():
        with turns.turn(): second.wait(20)

    others = [threading.Thread(target=other) for _ in range(company - 1)]
    if at_once > 1:
        for t in others: t.start()
        time.sleep(0.2)
        with turns.turn(): assert (not used) == alone
    else:
        with turns.turn():
            for t in others: t.start()
            assert not used
    second.set()
    for t in others: t.join()
    assert (not used) == alone


def test_several_are_looked_at_together(monkeypatch):
    "As many photographs as there are turns are in the networks at the same time, and never more"
    now, most, lock, both = [0], [0], threading.Lock(), threading.Barrier(2, timeout=20)

    def slow(pipe, photo):
        with lock:
            now[0] += 1
            most[0] = max(most[0], now[0])
        both.wait()
        with lock: now[0] -= 1
        return toy_call(pipe, photo)

    with Gallery(model="m") as g:
        g.add("Ann", np.eye(3, dtype=np.float32)[0])
        toy_call = FacePipeline.__call__
        monkeypatch.setattr(FacePipeline, "__call__", slow)
        c, seen = client(g, at_once=2), []
        ask = lambda: seen.append(c.post("/identify", files={"photo": RED}).status_code)
        threads = [threading.Thread(target=ask) for _ in range(6)]
        for t in threads: t.start()
        for t in threads: t.join()
    assert seen == [200]*6 and most[0] == 2


SERVE = """
import sys
sys.path[:0] = [sys.argv[1], sys.argv[1] + "/tests/commands"]
from test_serve import service, toy, Gallery
service.run_service(service.Service(toy(), Gallery(sys.argv[2], model="m"), cfg=service.ServeCfg(per_minute=10**7)),
                    port=int(sys.argv[3]))
"""


@pytest.fixture
def running(place):
    "A service in a process of its own"
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = s.getsockname()[1]
    process = subprocess.Popen([sys.executable, "-c", SERVE, str(ROOT), str(place), str(port)])
    url = f"http://127.0.0.1:{port}"
    for _ in range(300):
        try:
            if httpx.get(url + "/health").status_code == 200: break
        except httpx.HTTPError: time.sleep(0.1)
    yield process, url, place
    if process.poll() is None: process.kill()
    process.wait()


def load(url, acknowledged, stop, tag):
    "Enrol and ask until the service is gone"
    rng, i = np.random.default_rng(ord(tag)), 0
    with httpx.Client(timeout=20) as c:
        while not stop.is_set():
            name, i = f"{tag}{i}", i + 1
            photos = [("photos", (f"{j}.png", png(rng.integers(0, 255, 3)))) for j in range(2)]
            try:
                if c.post(f"{url}/people/{name}", files=photos).status_code == 200: acknowledged.append(name)
                c.post(url + "/identify", files={"photo": RED})
            except httpx.HTTPError: return


def under_load(running, end):
    "Three clients, then a signal; the people who were acknowledged"
    process, url, place = running
    acknowledged, stop = [], threading.Event()
    threads = [threading.Thread(target=load, args=(url, acknowledged, stop, t)) for t in "abc"]
    for t in threads: t.start()
    until = time.monotonic() + 60  # a busy machine takes its time
    while not acknowledged and time.monotonic() < until: time.sleep(0.1)
    time.sleep(1)
    process.send_signal(end)
    process.wait(30)
    stop.set()
    for t in threads: t.join()
    return acknowledged, process.returncode


def test_killed_under_load_nothing_acknowledged_is_lost(running):
    acknowledged, _ = under_load(running, signal.SIGKILL)
    with Gallery(running[2]) as g: people = g.people()
    assert acknowledged and set(acknowledged) <= people.keys() and set(people.values()) <= {1, 2}


@pytest.mark.skipif(os.name == "nt", reason="a signal")
def test_a_stop_answers_what_was_asked(running):
    acknowledged, code = under_load(running, signal.SIGTERM)
    with Gallery(running[2]) as g: assert acknowledged and set(acknowledged) <= g.people().keys()
    assert code in (0, -signal.SIGTERM)
