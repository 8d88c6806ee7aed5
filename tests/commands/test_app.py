"The page: made without a network, a photograph dropped on it through its own interface, looked at by a browser."
import re
import shutil
import socket
import subprocess
import urllib.request

import numpy as np
import pytest

from facerec_nb.faces.landmarks import LandmarkModel
from facerec_nb.apps.app import build_app, launch_app
from facerec_nb.faces.detection import create_detector
from facerec_nb.core.files import InputError, read_image, write_image
from facerec_nb.pipeline.gallery import Gallery
from facerec_nb.pipeline.face_pipeline import FacePipeline
from facerec_nb.datasets.synthetic import sample_faces

gradio = pytest.importorskip("gradio", reason='gradio is not installed: pip install "facerec_nb[app]"')


class Pixels:
    size, template = 112, "arcface"

    def embed(self, faces, flip=True, check_colour=False):
        e = faces[:, 20:100:8, 20:92:8].reshape(len(faces), -1).astype(np.float32)
        e -= e.mean(1, keepdims=True)
        return e/np.linalg.norm(e, axis=1, keepdims=True)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    "The page on a free port, with two drawn people enrolled, and their photographs"
    home = tmp_path_factory.mktemp("app")
    drawn = sample_faces(2, 1)["images"]
    paths = [write_image(home/f"people/{n}/1.png", img) for n, img in zip(("Ada", "Emil"), drawn)]
    detector, points = create_detector("centerface", threads=1), LandmarkModel.load("big", "cpu")
    pipe = FacePipeline(detector, points, Pixels(), "pixels", threshold=0.9)
    gallery = Gallery(model="pixels")
    pipe.enroll(home/"people", gallery)
    page = build_app(pipe, gallery)
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        free = s.getsockname()[1]
    yield launch_app(page, port=free, wait=False), paths
    page.close()
    gallery.close()


LOADED = (r"<(?:script|img|iframe)[^>]*\ssrc=[\"']([^\"']+)", r"<link[^>]*\shref=[\"']([^\"']+)",
          r"@import[^;]*?(http[^\"')]+)", r"url\([\"']?(http[^\"')]+)")


def test_the_page_asks_nobody_else(served):
    "Scripts, styles, fonts and pictures come from this machine"
    text = urllib.request.urlopen(served[0]).read().decode()
    loaded = [u for pattern in LOADED for u in re.findall(pattern, text)]
    here = served[0].rstrip("/")
    foreign = [u for u in loaded if u.startswith(("http", "//")) and not u.startswith(here)]
    assert loaded and not foreign, foreign
    assert "fonts.googleapis" not in text and "cdnjs" not in text
    assert '"analytics_enabled":false' in text.replace(" ", "")


def test_a_photograph_is_named(served):
    from gradio_client import Client, handle_file
    client = Client(served[0], verbose=False)
    picture, aligned, rows, said = client.predict(handle_file(str(served[1][1])), 0.9, api_name="/describe")
    first = rows["data"][0]
    assert first[:2] == ["known", "Emil"] and "1 known" in said and len(aligned) == len(rows["data"]) and picture
    mirrored = write_image(served[1][1].parent.parent.parent/"mirrored.png", read_image(served[1][1])[:, ::-1])
    assert client.predict(handle_file(str(mirrored)), 1.0, api_name="/describe")[2]["data"][0][0] == "unknown"


@pytest.mark.skipif(not shutil.which("chromium"), reason="chromium is not installed")
def test_a_browser_shows_it(served, tmp_path):
    off = "no-sandbox disable-gpu disable-quic no-first-run disable-background-networking"
    off = [f"--{word}" for word in f"{off} disable-component-update disable-sync".split()]
    only = [f"--user-data-dir={tmp_path/'profile'}", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]
    browser = ["chromium", "--headless", *off, *only, "--virtual-time-budget=20000"]
    dom = subprocess.run([*browser, "--dump-dom", served[0]], capture_output=True, text=True, timeout=120).stdout
    for words in ("Who is it?", "2 people are enrolled", "Photograph", "Threshold (cosine)", "Aligned faces"):
        assert words in dom, words


def test_a_taken_port_is_one_sentence(served):
    with gradio.Blocks(analytics_enabled=False) as other: gradio.Markdown("another")
    port = int(re.search(r":(\d+)", served[0].split("//")[1]).group(1))
    with pytest.raises(InputError, match=f"port {port} is taken"): launch_app(other, port=port, wait=False)
