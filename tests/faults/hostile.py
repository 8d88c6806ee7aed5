"""Hostile and odd inputs, made from a drawn photograph,
and the loops that feed them to everything that takes input from outside.

Each generator returns `Case`s; each `try_...` returns `Result`s, whose `failure` is empty when the input was refused
in one sentence or read right.
"""

import contextlib
import io
import os
import pickle
import re
import signal
import socket
import stat
import struct
import time
import warnings
import zipfile
import zlib
from collections import namedtuple
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from facerec_nb.core.files import InputError, image_size, read_image, write_image

LIMIT = 10  # seconds an input may take
Result = namedtuple("Result", "entry kind name seconds failure")


@dataclass
class Case:
    "One input"

    kind: str  # what is wrong with it, or odd about it
    name: str  # unlike any other of its generator
    source: object  # path, bytes, array, ...
    expect: str = "either"  # `refused`, `read`, or `either`: damage that a decoder may pass over
    truth: np.ndarray = None  # RGB uint8: what must be read
    tolerance: float = 0.0  # mean absolute difference from `truth`, grey levels


# ---------------------------------------------------------------- the scene


def small_photo():
    "A drawn photograph with one face, 160 pixels high, as RGB uint8"
    from facerec_nb.datasets.synthetic import sample_faces

    img = sample_faces(1, 2)["images"][1]
    return np.array(Image.fromarray(img).resize((round(160 * img.shape[1] / img.shape[0]), 160), Image.LANCZOS))


def random_run(folder):
    "A run whose networks have their starting weights: enough to go all the way from a photograph to an answer"
    import torch
    from dataclasses import asdict
    from facerec_nb.faces.crops import CropCfg
    from facerec_nb.models.backbones import Embedder
    from facerec_nb.models.checkpoint import save_checkpoint
    from facerec_nb.models.heads import create_head
    from facerec_nb.models.hourglass import StackedHourglass

    torch.manual_seed(0)
    folder = Path(folder)
    net = StackedHourglass(stacks=1, channels=16, depth=3, input_size=64)
    save_checkpoint(
        folder / "best_stacked_hg.pth",
        "landmarks",
        dict(model=net.state_dict()),
        net.arch,
        asdict(CropCfg(64)) | dict(flip=True, colour="RGB"),
    )
    emb, head = Embedder("tiny", 64, 112), create_head("arcface", 64, 4)
    save_checkpoint(
        folder / "best_af.pth",
        "embedder",
        dict(backbone=emb.state_dict(), head=head.state_dict()),
        dict(backbone=emb.arch, head=head.arch),
        dict(
            size=emb.size,
            colour="RGB",
            range="0..255",
            mean=emb.mean,
            std=emb.std,
            template="arcface",
            colour_mean=[128.0, 110.0, 100.0],
        ),
        classes=[1, 2, 3, 4],
        metrics={},
        epoch=1,
    )
    return folder


class Scene:
    "A folder with a photograph, a run and a gallery in order, a canary that no input may wake, and room for the inputs"

    def __init__(self, home, threads=1):
        from facerec_nb.apps.commands import facerec_enroll
        from facerec_nb.pipeline.face_pipeline import FacePipeline

        self.home, self.canary = Path(home), Path(home) / "outside" / "owned"
        (self.home / "outside").mkdir(parents=True)
        (self.home / "outside" / "neighbour.txt").write_text("not yours\n")
        self.photo, self.run = small_photo(), random_run(self.home / "run")
        self.good = write_image(self.home / "good.png", self.photo)
        self.pipe = FacePipeline.load(self.run, threads=threads)
        write_image(self.home / "people" / "Ann" / "1.png", self.photo)
        self.gallery = self.home / "gallery.db"
        all_of_them = dict(run=str(self.run), threshold=0.5, quality=0.0)
        assert quietly(facerec_enroll, str(self.home / "people"), str(self.gallery), **all_of_them)[0] == 0
        assert len(self.pipe(self.photo)) == 1, "the detector must find the drawn face"


# ---------------------------------------------------------------- watching


class Hang(BaseException):
    "Raised by the clock inside whatever takes too long; no `except Exception` stops it"


def attempt(f, *args, limit=LIMIT, **kwargs):
    "What `f` returned (or None), its `InputError` as text (or ''), any other end as text (or ''), seconds"

    def ring(*_):
        raise Hang

    old, start = signal.signal(signal.SIGALRM, ring), time.perf_counter()
    signal.setitimer(signal.ITIMER_REAL, limit)
    value, refusal, failure = None, "", ""
    try:
        value = f(*args, **kwargs)
    except InputError as e:
        refusal = str(e) or "(empty)"
    except Hang:
        failure = f"hangs: not done after {limit} s"
    except (Exception, SystemExit) as e:
        failure = f"crashes: {type(e).__name__}: {str(e)[:200]}"
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)
    return value, refusal, failure, time.perf_counter() - start


def quietly(f, *args, **kwargs):
    "What `f` returned, and what it printed to stdout and stderr"
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        value = f(*args, **kwargs)
    return value, out.getvalue(), err.getvalue()


def sentence(text, *names):
    "What is wrong with a refusal as one sentence that names the input (one of `names`) and the fix; empty: nothing"
    text = str(text)
    if names and not any(n in text for n in names):
        return f"names none of {names}: {text}"
    for n in sorted(names, key=len, reverse=True):
        text = text.replace(n, "NAME")
    if len(text.splitlines()) != 1:
        return f"not one line: {text!r}"
    if len(text) > 500:
        return f"{len(text)} characters: {text[:500]}"
    if re.search(r"[.!?]\s+[A-Z]|Traceback|<class|object at 0x", text):
        return f"more than a sentence: {text}"
    if not re.search(r"\w.{8,}: \w+ .*\w", text):
        return f"says no fix after a colon: {text}"
    return ""


def names_of(path):
    "The ways in which a message may name a file"
    from facerec_nb.apps.commands import one_line

    path = Path(path)
    return tuple(
        {
            str(path),
            one_line(path),
            " ".join(str(path).split()),
            path.name,
            one_line(path.name),
            " ".join(path.name.split()),
        }
        - {""}
    )


_SUMS = {}  # of files that nobody has touched since: whoever writes one gives it another ctime


def _sum(p, st):
    "Checksum of a file, read again only when it may have changed"
    if st.st_size >= 10_000_000:
        return 0
    key = str(p), st.st_ino, st.st_size, st.st_mtime_ns, st.st_ctime_ns
    if key in _SUMS:
        return _SUMS[key]
    found = zlib.crc32(p.read_bytes())
    if time.time_ns() - st.st_ctime_ns > 10**9:
        _SUMS[key] = found  # clocks of file systems are coarse
    return found


def _entry(p):
    "What a folder entry is, without opening anything but plain files"
    st = p.lstat()
    if stat.S_ISLNK(st.st_mode):
        return "link", os.readlink(p)
    if stat.S_ISREG(st.st_mode):
        return "file", st.st_size, st.st_mtime_ns, _sum(p, st)
    return "folder" if stat.S_ISDIR(st.st_mode) else "special"


def snapshot(folder, *without):
    "Everything below a folder as it is now, except below `without`"
    skip, found = {str(w) for w in without}, {}
    for root, dirs, files in os.walk(folder):
        dirs[:] = [d for d in dirs if os.path.join(root, d) not in skip]
        for n in dirs + files:
            if os.path.join(root, n) not in skip:
                found[os.path.join(root, n)] = _entry(Path(root) / n)
    return found


def changes(before, after):
    "Paths that came, went or changed"
    return sorted(p for p in before.keys() | after.keys() if before.get(p) != after.get(p))


# ---------------------------------------------------------------- photographs

FORMATS = dict(
    jpeg=("jpg", dict(format="JPEG", quality=90)),
    progressive=("jpg", dict(format="JPEG", quality=90, progressive=True)),
    png=("png", dict(format="PNG")),
    bmp=("bmp", dict(format="BMP")),
    webp=("webp", dict(format="WEBP", quality=90)),
    lossless=("webp", dict(format="WEBP", lossless=True)),
    gif=("png", dict(format="GIF")),
    tiff=("jpg", dict(format="TIFF", compression="tiff_deflate")),
)


def encoded(img, **settings):
    "An image as bytes of a file"
    out = io.BytesIO()
    (img if isinstance(img, Image.Image) else Image.fromarray(img)).save(out, **settings)
    return out.getvalue()


def truncated(photo, rng):
    "Every format, cut at many lengths"
    for fmt, (suffix, how) in FORMATS.items():
        data = encoded(photo, **how)
        for share in (0.001, 0.01, 0.03, 0.1, 0.2, 0.35, 0.5, 0.7, 0.9, 0.97):
            n = max(1, int(share * len(data)))
            yield (
                f"{fmt} cut at {n}.{suffix}",
                data[:n],
                "refused" if share <= 0.9 and fmt not in ("gif", "progressive") else "either",
            )


def bit_flipped(photo, rng):
    "Every format with flipped bits: one in the header, several anywhere, many"
    for fmt, (suffix, how) in FORMATS.items():
        data = encoded(photo, **how)
        for k in range(16):
            b = np.frombuffer(data, np.uint8).copy()
            n, top = ((1, 64), (1, 700), (4, len(b)), (1 + len(b) // 200, len(b)))[k % 4]
            np.bitwise_xor.at(b, rng.integers(0, min(top, len(b)), n), (1 << rng.integers(0, 8, n)).astype(np.uint8))
            yield f"{fmt} flipped {k}.{suffix}", b.tobytes(), "either"


def zero_byte(photo, rng):
    "Nothing, nothing but zeros, and files with zeros where something was"
    for suffix in ("jpg", "jpeg", "png", "bmp", "webp"):
        yield f"empty.{suffix}", b"", "refused"
    for n in (1, 2, 512, 100_000):
        yield f"{n} zeros.jpg", bytes(n), "refused"
    for fmt, (suffix, how) in FORMATS.items():
        data = encoded(photo, **how)
        half = len(data) // 2
        yield f"{fmt} zeros from the middle.{suffix}", data[:half] + bytes(len(data) - half), "either"
        yield f"{fmt} zeros at the start.{suffix}", bytes(64) + data[64:], "refused"


def _chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(w, h, idat=b"\0" * 64, depth=8, colour=2, before=b""):
    "A PNG that promises w x h pixels, with these bytes behind it"
    head = b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", struct.pack(">IIBBBBB", w, h, depth, colour, 0, 0, 0))
    return head + before + _chunk(b"IDAT", zlib.compress(idat, 9)) + _chunk(b"IEND", b"")


def tiff(w, h, strip=bytes(100), compression=1, next_ifd=0):
    "A grey TIFF that promises w x h pixels"
    data = zlib.compress(strip, 9) if compression == 8 else strip
    tags = [
        (256, 4, w),
        (257, 4, h),
        (258, 3, 8),
        (259, 3, compression),
        (262, 3, 1),
        (273, 4, 200),
        (277, 3, 1),
        (278, 4, h),
        (279, 4, len(data)),
    ]
    ifd = (
        struct.pack("<H", len(tags))
        + b"".join(struct.pack("<HHII", t, k, 1, v & 0xFFFFFFFF) for t, k, v in tags)
        + struct.pack("<I", next_ifd)
    )
    return (b"II*\0" + struct.pack("<I", 8) + ifd).ljust(200, b"\0") + data


def huge_dimension(photo, rng):
    "Headers that promise far more pixels than the file, the memory or the decoder has"
    jpeg, bmp, gif, webp = (encoded(photo, **FORMATS[f][1]) for f in ("jpeg", "bmp", "gif", "webp"))
    sof, frame, vp8 = jpeg.index(b"\xff\xc0") + 5, gif.index(b"\x2c", 13 + 3 * 256), webp.index(b"\x9d\x01\x2a") + 3

    def put(data, at, code, *values):
        b = bytearray(data)
        struct.pack_into(code, b, at, *values)
        return bytes(b)

    for w, h in ((60_000, 60_000), (65_500, 65_500), (65_500, 40_000), (0, 0), (0, 100), (100, 0)):
        yield f"png {w}x{h}.png", png(w, h), "refused"
        yield f"jpeg {w}x{h}.jpg", put(jpeg, sof, ">HH", h, w), "refused"
        yield f"bmp {w}x{h}.bmp", put(bmp, 18, "<ii", w, h), "refused"
        yield f"gif {w}x{h}.png", put(put(gif, 6, "<HH", w, h), frame + 5, "<HH", w, h), "refused"
        yield f"tiff {w}x{h}.jpg", tiff(w, h), "refused"
    for w, h in ((2**31 - 1, 2**31 - 1), (2**31 - 1, 1), (1, 2**31 - 1), (2**32 - 1, 2**32 - 1), (10**6, 10**6)):
        yield f"png {w}x{h}.png", png(w, h), "refused"
        yield f"tiff {w}x{h}.jpg", tiff(w, h), "refused"
    for w, h in ((-1, -1), (2**31 - 1, -(2**31)), (160, -(2**31))):
        yield f"bmp {w}x{h}.bmp", put(bmp, 18, "<ii", w, h), "refused"
    for w, h in ((16_383, 16_383), (16_383, 1), (0, 0)):
        yield f"webp {w}x{h}.webp", put(webp, vp8, "<HH", w, h), "refused"
    for w, h in ((8000, 8000), (100_000, 1000)):
        yield f"png {w}x{h}, allowed but empty.png", png(w, h), "refused"
        yield f"tiff {w}x{h}, allowed but empty.jpg", tiff(w, h), "refused"


def bombs(photo, rng):
    "Small files that unpack to something large, or that take for ever to decode"
    zeros, tiny = bytes(50_000_000), np.zeros((40, 40, 3), np.uint8)
    text = zlib.compress(zeros, 9)
    yield "225 million black pixels.png", png(15_000, 15_000, bytes(15_001 * 15_000), colour=0), "refused"
    yield "packed text.png", png(4, 4, bytes(52), before=_chunk(b"zTXt", b"Comment\0\0" + text) * 3), "either"
    yield (
        "packed unicode text.png",
        png(4, 4, bytes(52), before=_chunk(b"iTXt", b"Comment\0\1\0\0\0" + text) * 3),
        "either",
    )
    yield "packed profile.png", png(4, 4, bytes(52), before=_chunk(b"iCCP", b"sRGB\0\0" + text)), "either"
    yield "far more data than pixels.png", png(4, 4, zeros), "either"
    yield "strip that unpacks to more.jpg", tiff(10, 10, zeros, compression=8), "either"
    yield "page that is its own next page.jpg", tiff(10, 10, next_ifd=8), "either"
    frames = [Image.fromarray(np.full_like(tiny, i % 256)) for i in range(400)]
    for fmt, suffix in (("GIF", "png"), ("PNG", "png"), ("WEBP", "webp")):
        yield (
            f"400 frames {fmt}.{suffix}",
            encoded(frames[0], format=fmt, save_all=True, append_images=frames[1:]),
            "read",
        )
    scans = encoded(Image.new("L", (4000, 4000), 128), format="JPEG", progressive=True)
    last = scans[scans.rfind(b"\xff\xda") : -2]
    for n in (200, 20_000):
        yield f"progressive with {n} scans.jpg", scans[:-2] + last * n + b"\xff\xd9", "refused"


def disguised(photo, rng, canary):
    "Text, programs and other files called .jpg"

    class Evil:
        def __reduce__(self):
            return os.system, (f"touch '{canary}'",)

    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as z:
        z.writestr("../outside/owned", "x")
        z.writestr(str(canary), "x")
    run = f"touch '{canary}'"
    eps = (
        "%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n"
        f"(%pipe%{run}) (w) file closefile\nshowpage\n%%EOF\n"
    )
    files = {
        "text": b"I am a text\n" * 50,
        "unicode text": "Äpfel und Übel\n".encode("utf-16"),
        "html": b"<html><body><img src=x onerror=alert(1)></body></html>",
        "svg": b'<?xml version="1.0"?><!DOCTYPE s [<!ENTITY a SYSTEM "file:///etc/passwd">]>'
        b'<svg xmlns="http://www.w3.org/2000/svg">&a;</svg>',
        "shell script": f"#!/bin/sh\n{run}\n".encode(),
        "python": f"import os; os.system({run!r})\n".encode(),
        "pickle": pickle.dumps(Evil()),
        "eps": eps.encode(),
        "pdf": b"%PDF-1.4\n1 0 obj<</Type/Catalog>>endobj\ntrailer<</Root 1 0 R>>\n",
        "zip": packed.getvalue(),
        "gzip": b"\x1f\x8b\x08\0" + bytes(40),
        "csv": b"image_id,identity\n1.jpg,2\n",
        "json": b"{}",
        "elf": b"\x7fELF\2\1\1" + bytes(200),
        "sqlite": b"SQLite format 3\0" + bytes(500),
        "xpm": b'/* XPM */\nstatic char * x[] = {\n"1 1 1 1",\n"a c #000000",\n"a"};\n',
        "wmf": b"\xd7\xcd\xc6\x9a" + bytes(100),
        "fits": b"SIMPLE  =                    T" + b" " * 2850,
        "mp4": b"\0\0\0\x20ftypisom" + bytes(100),
        "icon": b"\0\0\1\0\1\0" + bytes(60),
        "heic": b"\0\0\0\x18ftypheic" + bytes(100),
        "jpeg marker": b"\xff\xd8\xff",
        "png marker": b"\x89PNG\r\n\x1a\n",
        "noise": rng.integers(0, 256, 5000, dtype=np.uint8).tobytes(),
    }
    for what, data in files.items():
        yield f"{what}.jpg", data, "refused"


def _gray(photo):
    return np.array(Image.fromarray(photo).convert("L"))


def _three(a):
    return np.stack([a] * 3, -1)


def deep(photo, rng):
    "16 bits and more, which must look as they do in 8"
    import cv2

    g = _gray(photo)
    g16 = g.astype(np.uint16) * 257
    turned = np.ascontiguousarray(photo[..., ::-1].astype(np.uint16) * 257)
    grays = {
        "gray 16-bit.png": encoded(g16, format="PNG"),
        "gray 16-bit.jpg": encoded(g16, format="TIFF"),
        "gray 32-bit.jpg": encoded(g16.astype(np.int32), format="TIFF"),
        "gray float.jpg": encoded(Image.fromarray(g.astype(np.float32) / 255), format="TIFF"),
        "gray big-endian 16-bit.jpg": encoded(
            Image.frombytes("I;16B", g.shape[::-1], g16.astype(">u2").tobytes()), format="TIFF"
        ),
    }
    for n, data in grays.items():
        yield n, data, "read", _three(g), 1.1
    yield "colour 16-bit.png", cv2.imencode(".png", turned)[1].tobytes(), "read", photo, 1.0
    yield (
        "colour with alpha 16-bit.png",
        cv2.imencode(".png", np.dstack([turned, np.full(g.shape, 65535, np.uint16)]))[1].tobytes(),
        "read",
        photo,
        1.0,
    )
    nan = g.astype(np.float32)
    nan[::2] = np.nan
    nan[1::3] = np.inf
    yield "float with nan.jpg", encoded(Image.fromarray(nan), format="TIFF"), "either", None, 0
    yield "all zero 16-bit.png", encoded(np.zeros_like(g16), format="PNG"), "read", _three(g * 0), 0
    yield (
        "two colours.png",
        encoded(Image.fromarray(g).convert("1", dither=0), format="PNG"),
        "read",
        _three(((g > 127) * 255).astype(np.uint8)),
        0,
    )


def palette(photo, rng):
    "Palettes, with and without transparency, and alpha, which is laid on white"
    im = Image.fromarray(photo)
    p = im.quantize(256)
    q = np.array(p.convert("RGB"))
    h, w = photo.shape[:2]
    yield "palette.png", encoded(p, format="PNG"), "read", q, 0
    yield "palette.bmp", encoded(p, format="BMP"), "read", q, 0
    yield "palette gif.png", encoded(p, format="GIF"), "read", q, 0
    yield (
        "16 colours.png",
        encoded(im.quantize(16), format="PNG", bits=4),
        "read",
        np.array(im.quantize(16).convert("RGB")),
        0,
    )
    see = np.array(p) == np.array(p)[0, 0]
    on_white = np.where(see[..., None], 255, q).astype(np.uint8)
    yield (
        "palette with a transparent colour.png",
        encoded(p, format="PNG", transparency=int(np.array(p)[0, 0])),
        "read",
        on_white,
        0,
    )
    mask = np.zeros((h, w), np.uint8)
    mask[:, w // 2 :] = 255
    white = np.where(mask[..., None] > 0, photo, 255).astype(np.uint8)
    yield "alpha.png", encoded(np.dstack([photo, mask]), format="PNG"), "read", white, 0
    yield "alpha.webp", encoded(np.dstack([photo, mask]), format="WEBP", lossless=True), "read", white, 0
    yield (
        "gray with alpha.png",
        encoded(Image.merge("LA", [Image.fromarray(_gray(photo)), Image.fromarray(mask)]), format="PNG"),
        "read",
        np.where(mask[..., None] > 0, _three(_gray(photo)), 255),
        1,
    )
    yield "gray.jpg", encoded(_gray(photo), format="JPEG", quality=95), "read", _three(_gray(photo)), 3


def cmyk(photo, rng):
    "Four-colour and other colour spaces"
    im = Image.fromarray(photo)
    yield "cmyk.jpg", encoded(im.convert("CMYK"), format="JPEG", quality=95), "read", photo, 6
    yield "cmyk tiff.jpg", encoded(im.convert("CMYK"), format="TIFF"), "read", photo, 1
    yield (
        "cmyk progressive.jpg",
        encoded(im.convert("CMYK"), format="JPEG", quality=95, progressive=True),
        "read",
        photo,
        6,
    )
    yield "ycbcr tiff.jpg", encoded(im.convert("YCbCr"), format="TIFF", compression="tiff_lzw"), "read", photo, 3
    yield (
        "ycbcr bare tiff.jpg",
        encoded(im.convert("YCbCr"), format="TIFF"),
        "either",
        photo,
        3,
    )  # Pillow 12.3 writes it and cannot read it back, Pillow 13 can
    yield "no subsampling.jpg", encoded(im, format="JPEG", quality=98, subsampling=0), "read", photo, 3


STORED = {
    1: None,
    2: Image.FLIP_LEFT_RIGHT,
    3: Image.ROTATE_180,
    4: Image.FLIP_TOP_BOTTOM,
    5: Image.TRANSPOSE,
    6: Image.ROTATE_90,
    7: Image.TRANSVERSE,
    8: Image.ROTATE_270,
}  # EXIF value -> how an upright picture is stored


def exif_rotated(photo, rng):
    "All eight EXIF orientations in four formats, which must be read upright, and orientation tags that say nothing"
    im = Image.fromarray(photo)
    for value, turn in STORED.items():
        exif = Image.Exif()
        exif[0x0112] = value
        stored = im if turn is None else im.transpose(turn)
        for fmt, (suffix, how), near in (
            ("jpeg", FORMATS["jpeg"], 5),
            ("png", FORMATS["png"], 0),
            ("lossless", FORMATS["lossless"], 0),
            ("tiff", FORMATS["tiff"], 0),
        ):
            yield f"{fmt} orientation {value}.{suffix}", encoded(stored, exif=exif, **how), "read", photo, near
    for value in (0, 9, 255, 65535):
        exif = Image.Exif()
        exif[0x0112] = value
        yield f"orientation {value}.jpg", encoded(im, exif=exif, **FORMATS["jpeg"][1]), "read", photo, 5
    whole = Image.Exif()
    whole[0x0112] = 6
    whole[0x010F] = "maker"
    whole = b"Exif\0\0" + whole.tobytes().removeprefix(b"Exif\0\0")
    for i, junk in enumerate(
        (
            b"Exif\0\0",
            b"Exif\0\0garbage",
            b"Exif\0\0II*\0\x08\0\0\0\xff\xff" + b"\x12\x01\x03\0\x01\0\0\0\x09\0\0\0" * 3,
            b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x02\0\0\0\x01\0\x06\0\0\0\0\0\0",
            b"Exif\0\0II*\0\xff\xff\xff\xff",
            whole[:20],
        )
    ):
        yield f"damaged exif {i}.jpg", encoded(im, exif=junk, **FORMATS["jpeg"][1]), "read", photo, 5


def animated(photo, rng):
    "Animations, of which the first picture counts"
    im = Image.fromarray(photo)
    rest = [im.rotate(90 * i) for i in (1, 2)]
    p = im.quantize(256)
    yield (
        "animated.webp",
        encoded(im, format="WEBP", lossless=True, save_all=True, append_images=rest),
        "read",
        photo,
        0,
    )
    yield "animated.png", encoded(im, format="PNG", save_all=True, append_images=rest), "read", photo, 0
    yield (
        "animated gif.png",
        encoded(p, format="GIF", save_all=True, append_images=[r.quantize(256) for r in rest]),
        "read",
        np.array(p.convert("RGB")),
        0,
    )
    yield "pages.jpg", encoded(im, format="TIFF", save_all=True, append_images=rest), "read", photo, 0
    yield "mpo.jpg", encoded(im, format="MPO", save_all=True, append_images=rest, quality=90), "read", photo, 5


def odd_shapes(photo, rng):
    "Sizes that are allowed and that nobody takes photographs in"
    for w, h in ((1, 1), (1, 2), (2, 1), (3, 3), (1, 3000), (3000, 1), (5, 40_000), (40_000, 5), (31, 33)):
        a = rng.integers(0, 256, (h, w, 3), dtype=np.uint8)
        yield f"{w}x{h}.png", encoded(a, format="PNG", compress_level=1), "read", a, 0
    yield "9 million white pixels.png", png(3000, 3000, (b"\0" + b"\xff" * 375) * 3000, depth=1, colour=0), "read"
    data = encoded(photo, **FORMATS["jpeg"][1])
    yield "words behind the picture.jpg", data + b"#!/bin/sh\n" * 100, "read", photo, 5
    yield "two pictures in a row.jpg", data + data, "read", photo, 5
    yield "wrong suffix.png", data, "read", photo, 5


NAMES = (
    "with spaces.jpg",
    " leading space.jpg",
    "many   spaces  inside .jpg",
    "Zoë.jpg",
    "Zoe\u0308 decomposed.jpg",
    "漢字.jpg",
    "Ана Петрова.jpg",
    "عربي.jpg",
    "😀.jpg",
    "a\u202egpj.b.jpg",
    "zero\u200bwidth.jpg",
    "tab\there.jpg",
    "two\nlines.jpg",
    "return\r.jpg",
    "bell\a.jpg",
    "escape \x1b[31mred.jpg",
    "'quoted'.jpg",
    'double "quoted".jpg',
    "back\\slash.jpg",
    "-rf.jpg",
    "--json.jpg",
    "percent %s %d.jpg",
    "{curly} {0}.jpg",
    "$HOME `touch owned`.jpg",
    "; touch owned;.jpg",
    "a&b|c>d.jpg",
    "star * question ?.jpg",
    "[brackets].jpg",
    "UPPER.JPG",
    "dots...jpg",
    "~tilde.jpg",
    "#hash.jpg",
    "comma,semi;.jpg",
    "=formula().jpg",
    "x" * 251 + ".jpg",
    "é" * 125 + ".jpg",
)


def odd_names(photo, rng):
    "A photograph in order, under names that break programs"
    data = encoded(photo, **FORMATS["jpeg"][1])
    truth = np.array(Image.open(io.BytesIO(data)))
    for name in (*NAMES, os.fsdecode(b"caf\xe9.jpg")):
        yield name, data, "read", truth, 0


def no_files(folder, photo):
    "Folders, links, pipes and other things called .jpg"
    real = write_image(folder / "real" / "photo.png", photo)

    def case(name, make=None, expect="refused", truth=None):
        if make:
            make(folder / name)
        return Case("no plain file", name, folder / name, expect, truth)

    def bound(p):
        here = os.getcwd()
        os.chdir(p.parent)  # the name of a socket may have 107 bytes
        try:
            s = socket.socket(socket.AF_UNIX)
            s.bind(p.name)
            s.close()
        finally:
            os.chdir(here)

    def sparse(p):
        with open(p, "wb") as f:
            f.truncate(8_000_000_000)

    yield case("folder.jpg", Path.mkdir)
    yield case("missing.jpg")
    yield case("pipe.jpg", os.mkfifo)
    yield case("socket.jpg", bound)
    yield case("eight gigabytes of nothing.jpg", sparse)
    for name, target in (
        ("dangling", "nothing there"),
        ("itself", "itself.jpg"),
        ("to the folder", "."),
        ("to the parent", ".."),
        ("to a pipe", "pipe.jpg"),
        ("endless", "/dev/zero"),
        ("null", "/dev/null"),
        ("random", "/dev/urandom"),
        ("process", "/proc/self/mem"),
        ("secret", "/etc/passwd"),
    ):
        yield case(f"{name}.jpg", lambda p, t=target: p.symlink_to(t))
    (folder / "a.jpg").symlink_to("b.jpg")
    (folder / "b.jpg").symlink_to("a.jpg")
    yield case("a.jpg")
    yield case("b.jpg")
    deep = folder / "loop"
    deep.mkdir()
    (deep / "again").symlink_to(deep)
    (deep / "up").symlink_to(folder)
    for n, p in (
        ("loop photo", "loop/again/again/up/missing.jpg"),
        ("through a file", "real/photo.png/x.jpg"),
        ("long", "x" * 5000 + ".jpg"),
        ("long path", "/".join(["y" * 200] * 40) + ".jpg"),
        ("null byte", "a\0b.jpg"),
    ):
        yield Case("no plain file", n, folder / p, "refused")
    yield case("link to a photograph.png", lambda p: p.symlink_to(real), "read", photo)
    yield Case("no plain file", "folder itself", folder, "refused")
    yield Case("no plain file", "root", Path("/"), "refused")
    yield Case("no plain file", "empty path", "", "refused")


KINDS = {
    "truncated": truncated,
    "bit-flipped": bit_flipped,
    "zero-byte": zero_byte,
    "huge dimension": huge_dimension,
    "decompression bomb": bombs,
    "16-bit": deep,
    "palette and alpha": palette,
    "CMYK": cmyk,
    "EXIF-rotated": exif_rotated,
    "animated": animated,
    "odd shape": odd_shapes,
    "odd name": odd_names,
}


def photographs(scene, seed=0):
    "Every hostile or odd photograph as a file below `scene.home/photos`"
    rng, cases = np.random.default_rng(seed), []
    for kind, make in {**KINDS, "other file called .jpg": lambda p, r: disguised(p, r, scene.canary)}.items():
        folder = scene.home / "photos" / kind
        folder.mkdir(parents=True)
        for name, data, *rest in make(scene.photo, rng):
            try:
                (folder / name).write_bytes(data)
            except OSError:
                continue  # a file system that takes UTF-8 names only
            cases.append(Case(kind, name, folder / name, *rest))
    folder = scene.home / "photos" / "no plain file"
    folder.mkdir()
    return cases + list(no_files(folder, scene.photo))


def values(scene):
    "What a program may hand over instead of a path"
    photo = scene.photo
    data = encoded(photo, **FORMATS["png"][1])

    def case(name, v, expect="refused", truth=None, kind="array"):
        return Case(kind, name, v, expect, truth)

    for dtype in (
        bool,
        np.int8,
        np.int16,
        np.uint16,
        np.int32,
        np.int64,
        np.float16,
        np.float32,
        np.float64,
        complex,
        object,
        "U1",
    ):
        yield case(f"{np.dtype(dtype)}", np.zeros((4, 4, 3), dtype))
    for shape in (
        (),
        (5,),
        (0,),
        (0, 5, 3),
        (5, 0, 3),
        (0, 0),
        (4, 4, 0),
        (4, 4, 1),
        (4, 4, 2),
        (4, 4, 5),
        (3, 40, 40),
        (2, 4, 4, 3),
        (1, 1, 1, 1, 3),
    ):
        yield case(f"shape {shape}", np.zeros(shape, np.uint8))
    yield case("gray", _gray(photo), "read", _three(_gray(photo)))
    yield case("strided", np.repeat(photo, 2, 1)[:, ::2], "read", photo)
    yield case("mirrored view", photo[:, ::-1][:, ::-1], "read", photo)
    frozen = photo.copy()
    frozen.flags.writeable = False
    yield case("read-only", frozen, "read", photo)
    yield case("opaque alpha", np.dstack([photo, np.full(photo.shape[:2], 255, np.uint8)]), "read", photo)
    for w, h in ((1, 1), (1, 9000), (9000, 1), (40_000, 3), (3, 40_000)):
        yield case(f"{w}x{h}", np.zeros((h, w, 3), np.uint8), "read", np.zeros((h, w, 3), np.uint8))
    yield case("memory map of a file", np.memmap(scene.good, np.uint8, "r"))
    for name, v in (
        ("no bytes", b""),
        ("text bytes", b"abc"),
        ("cut bytes", data[:500]),
        ("zeros", bytearray(1000)),
        ("huge header", png(60_000, 60_000)),
    ):
        yield case(name, v, kind="bytes")
    yield case("bytes", data, "read", photo, "bytes")
    yield case("bytearray", bytearray(data), "read", photo, "bytes")
    yield case("PIL image", Image.fromarray(photo), "read", photo, "PIL image")
    yield case("PIL image of a cut file", Image.open(io.BytesIO(data[: len(data) // 2])), kind="PIL image")
    yield case("PIL image of no size", Image.new("RGB", (0, 0)), kind="PIL image")
    for name, v in (
        ("None", None),
        ("number", 3),
        ("float", 1.5),
        ("dict", {}),
        ("set", {1}),
        ("class", object),
        ("function", print),
        ("path of bytes, missing", os.fsencode("/nowhere/x.jpg")),
    ):
        yield case(name, v, kind="no photograph")


def fits(case, img):
    "What is wrong with what was read"
    if case.expect == "refused":
        return f"was read, as {img.shape}"
    if img.dtype != np.uint8 or img.ndim != 3 or img.shape[2] != 3 or 0 in img.shape:
        return f"read as {img.dtype} {img.shape}"
    if case.truth is None:
        return ""
    if img.shape != case.truth.shape:
        return f"read as {img.shape}, not {case.truth.shape}"
    off = np.abs(img.astype(int) - case.truth).mean()
    return f"differs by {off:.2f} grey levels, allowed {case.tolerance}" if off > case.tolerance else ""


def judged(entry, case, outcome, check=lambda value: "", names=None):
    "One `Result` of one attempt"
    value, refusal, failure, seconds = outcome
    if not failure and refusal:
        failure = (
            "refused: " + refusal
            if case.expect == "read"
            else sentence(
                refusal, *(names_of(case.source) if isinstance(case.source, (str, Path)) and str(case.source) else ())
            )
        )
    elif not failure:
        failure = check(value)
    return Result(entry, case.kind, case.name, seconds, failure)


def noisy(f, *args):
    "`f`, where a warning of ours is a crash: nobody at a screen would understand it (PIL's own are left to the caller)"
    with warnings.catch_warnings(record=True) as log:
        warnings.simplefilter("always")
        try:
            return f(*args)
        finally:
            if ours := [w for w in log if f"{os.sep}PIL{os.sep}" not in w.filename]:
                raise ours[0].message


def try_reading(cases):
    "`read_image` on every case, and `image_size` on every path"
    for c in cases:
        yield judged("read_image", c, attempt(noisy, read_image, c.source), lambda img, c=c: fits(c, img))
        if not isinstance(c.source, (str, Path)):
            continue
        right = None if c.truth is None else c.truth.shape[1::-1]
        lenient = Case(c.kind, c.name, c.source, "read" if c.expect == "read" else "either")
        yield judged(
            "image_size",
            lenient,
            attempt(noisy, image_size, c.source),
            lambda size, r=right: "" if r is None or tuple(size) == r else f"size {size}, not {r}",
        )


# ---------------------------------------------------------------- the pipeline


def sample(cases, per_kind):
    "The first few cases of each kind and expectation"
    seen, kept = {}, []
    for c in cases:
        seen[c.kind, c.expect] = n = seen.get((c.kind, c.expect), 0) + 1
        if n <= per_kind:
            kept.append(c)
    return kept


def _faces(scene, case):
    "Checks of what the pipeline found: nothing, or faces with embeddings of length 1"

    def check(faces):
        if faces.problem:
            return f"a problem where an error belongs: {faces.problem}"
        if case.expect == "refused":
            return "was read"
        if not all(
            np.isclose(np.linalg.norm(f.embedding), 1, atol=1e-3) and f.aligned.shape == (112, 112, 3) for f in faces
        ):
            return "a face without a proper embedding"
        same = (
            case.truth is not None
            and case.truth.shape == scene.photo.shape
            and np.abs(case.truth.astype(int) - scene.photo).mean() <= case.tolerance
        )
        return "the face was not found" if same and len(faces) != 1 else ""

    return check


def try_pipeline(scene, cases, whole=False):
    "`pipe(x)` for paths, the same as bytes, and values; `whole` takes the picture for the face"
    from facerec_nb.faces.detection import WholeImage
    from facerec_nb.pipeline.face_pipeline import FacePipeline

    p, entry = scene.pipe, "pipe (whole)" if whole else "pipe"
    pipe = FacePipeline(WholeImage(), p.landmarks, p.embedder, p.model, 0.5) if whole else p

    def check(c):
        return (lambda faces: "was read" if c.expect == "refused" else "") if whole else _faces(scene, c)

    for c in cases:
        if isinstance(c.source, (str, Path)) and os.path.isdir(c.source):
            continue  # a folder is many photographs
        yield judged(entry, c, attempt(pipe, c.source), check(c))
        if (
            not whole
            and isinstance(c.source, Path)
            and c.source.is_file()
            and not c.source.is_symlink()
            and c.source.stat().st_size < 10**7
        ):
            yield judged(
                f"{entry} (bytes)",
                Case(c.kind, c.name, c.source.read_bytes(), c.expect, c.truth, c.tolerance),
                attempt(pipe, c.source.read_bytes()),
                check(c),
            )


def try_many(scene, cases, folder):
    "`pipe` on a list of all cases and on the folder of all photographs: nothing stops it, and each bad one says why"
    from facerec_nb.datasets.photos import photos_below

    def answered(case, faces):
        if faces.problem:
            return (
                "refused: " + faces.problem
                if case.expect == "read"
                else sentence(
                    faces.problem,
                    *(names_of(case.source) if isinstance(case.source, (str, Path)) and str(case.source) else ()),
                )
            )
        return _faces(scene, case)(faces)

    found, refusal, failure, s = attempt(scene.pipe, [c.source for c in cases], limit=LIMIT * len(cases))
    if failure or refusal or len(found) != len(cases):
        yield Result(
            "pipe (list)", "all", "all", s, failure or refusal or f"{len(found)} answers to {len(cases)} photographs"
        )
        return
    for c, faces in zip(cases, found):
        yield Result("pipe (list)", c.kind, c.name, s / len(cases), answered(c, faces))
    if not folder:
        return
    known, there = {str(c.source): c for c in cases}, photos_below(folder)
    found, refusal, failure, s = attempt(scene.pipe, folder, limit=LIMIT * len(there))
    if failure or refusal or len(found) != len(there):
        yield Result(
            "pipe (folder)", "all", "all", s, failure or refusal or f"{len(found)} answers to {len(there)} photographs"
        )
        return
    for p, faces in zip(there, found):
        c = known.get(str(p)) or Case("no plain file", p.name, p)
        yield Result("pipe (folder)", c.kind, c.name, s / len(there), answered(c, faces))


# ---------------------------------------------------------------- checkpoints


def evils(canary):
    "Objects that touch the canary when unpickled, in several ways"
    order = f"touch '{canary}'"

    def evil(f, *args):
        return type("Evil", (), dict(__reduce__=lambda self: (f, args)))()

    import subprocess

    return dict(
        system=evil(os.system, order),
        eval=evil(eval, f"__import__('os').system({order!r})"),
        exec=evil(exec, f"import os; os.system({order!r})"),
        popen=evil(subprocess.call, ["sh", "-c", order]),
        open=evil(open, str(canary), "w"),
        mkdir=evil(os.mkdir, str(canary)),
    )


def checkpoints(scene, seed=0):
    "Both checkpoints of a run: cut short, flipped, replaced, carrying code, of another version, without what is needed"
    import torch

    rng, folder = np.random.default_rng(seed), scene.home / "checkpoints"
    folder.mkdir()
    codes = evils(scene.canary)

    def case(kind, name, file, make, expect="refused"):
        run = folder / f"{kind}, {name}, {file}"
        run.mkdir()
        for other in {"best_af.pth", "best_stacked_hg.pth"} - {file}:
            (run / other).symlink_to(scene.run / other)
        data = make(run / file)
        if isinstance(data, bytes):
            (run / file).write_bytes(data)
        return Case(kind, f"{name}, {file}", run / file, expect)

    for file in ("best_af.pth", "best_stacked_hg.pth"):
        data, ck = (scene.run / file).read_bytes(), torch.load(scene.run / file, weights_only=True)

        def saved(change, legacy=False, ck=ck):
            def make(path):
                torch.save(
                    change
                    if not callable(change)
                    else change({k: dict(v) if isinstance(v, dict) else v for k, v in ck.items()}),
                    path,
                    _use_new_zipfile_serialization=not legacy,
                )

            return make

        for share in (0, 0.001, 0.01, 0.1, 0.3, 0.5, 0.7, 0.9, 0.99):
            yield case("checkpoint cut short", f"{share}", file, lambda p, n=int(share * len(data)), d=data: d[:n])
        yield case("checkpoint cut short", "last byte", file, lambda p, d=data: d[:-1], "either")
        for k in range(12):
            b = np.frombuffer(data, np.uint8).copy()
            n = (1, 3, 200)[k % 3]
            np.bitwise_xor.at(b, rng.integers(0, len(b), n), (1 << rng.integers(0, 8, n)).astype(np.uint8))
            yield case("checkpoint bit-flipped", str(k), file, lambda p, b=b.tobytes(): b, "either")
        b = bytearray(data)
        b[len(b) // 2] ^= 1
        yield case("checkpoint bit-flipped", "one weight", file, lambda p, b=bytes(b): b)
        for how, e in codes.items():
            yield case("checkpoint with code", f"pickle {how}", file, lambda p, e=e: pickle.dumps(e))
            yield case("checkpoint with code", f"zip {how}", file, saved(lambda c, e=e: e))
            yield case("checkpoint with code", f"in weights {how}", file, saved(lambda c, e=e: c | dict(weights=e)))
        yield case("checkpoint with code", "in metrics", file, saved(lambda c: c | dict(metrics=codes["system"])))
        yield case(
            "checkpoint with code", "legacy", file, saved(lambda c: c | dict(extra=codes["system"]), legacy=True)
        )
        yield case("checkpoint with code", "whole module", file, saved(lambda c: torch.nn.Linear(2, 2)))
        for key in ("schema", "weights", "arch", "preprocessing", "kind"):
            yield case("checkpoint without", key, file, saved(lambda c, k=key: {a: b for a, b in c.items() if a != k}))
        for key, values in dict(
            schema=(0, 2, 99, "1", None),
            kind=("other", None, 7),
            weights=({}, [], 3, None),
            arch=({}, [], None, dict(name="x"), dict(backbone={}, head={}), dict(channels=-1)),
            preprocessing=({}, None, dict(size="big", colour="RGB"), dict(colour="BGR")),
        ).items():
            for v in values:
                yield case("checkpoint with another", f"{key} {v}", file, saved(lambda c, k=key, v=v: c | {k: v}))
        part = next(iter(ck["weights"]))
        name = next(k for k, v in ck["weights"][part].items() if v.dtype.is_floating_point and v.ndim > 1)

        def weights(change):
            return saved(
                lambda c, part=part, name=name: (
                    c
                    | dict(
                        weights={**c["weights"], part: {**c["weights"][part], name: change(c["weights"][part][name])}}
                    )
                )
            )

        for what, change in dict(
            nan=lambda t: t * float("nan"),
            infinite=lambda t: t + float("inf"),
            flat=lambda t: t.flatten(),
            number=lambda t: 3.0,
            text=lambda t: "w",
            endless=lambda t: torch.zeros(1).expand(10**6, 10**6),
        ).items():
            yield case("checkpoint with weights", what, file, weights(change))
        packed = io.BytesIO()
        with zipfile.ZipFile(scene.run / file) as a, zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as z:
            for n in a.namelist():
                z.writestr(n, a.read(n))
            z.writestr(f"{a.namelist()[0].split('/')[0]}/data/bomb", bytes(50_000_000))
        yield case("checkpoint replaced", "packed bomb", file, lambda p, d=packed.getvalue(): d)
        for n, d in (
            ("text", b"weights\n" * 99),
            ("zeros", bytes(9999)),
            ("photograph", scene.good.read_bytes()),
            ("empty zip", b"PK\5\6" + bytes(18)),
        ):
            yield case("checkpoint replaced", n, file, lambda p, d=d: d)
        yield case("checkpoint replaced", "folder", file, lambda p: p.mkdir())
        yield case("checkpoint replaced", "pipe", file, lambda p: os.mkfifo(p))
        yield case(
            "checkpoint replaced", "missing", file, lambda p: None, "refused" if file == "best_af.pth" else "either"
        )  # then the landmarks of the package are taken
        yield case("checkpoint replaced", "link to itself", file, lambda p: p.symlink_to(p.name))
        yield case("checkpoint replaced", "endless", file, lambda p: p.symlink_to("/dev/zero"))
        yield case(
            "checkpoint replaced",
            "the other one",
            file,
            lambda p, d=(scene.run / ({"best_af.pth": "best_stacked_hg.pth"}.get(file, "best_af.pth"))).read_bytes(): d,
        )


def try_checkpoints(scene, cases):
    "`load_checkpoint` and a pipeline made with each"
    from facerec_nb.models.checkpoint import load_checkpoint
    from facerec_nb.pipeline.face_pipeline import FacePipeline

    for c in cases:
        lenient = Case(c.kind, c.name, c.source)  # what is inside is the business of the models
        yield judged("load_checkpoint", lenient, attempt(load_checkpoint, c.source))

        def use(run=c.source.parent):
            pipe = FacePipeline.load(run, detector=scene.pipe.detector)
            faces = pipe(scene.photo)
            if not all(np.isfinite(f.embedding).all() for f in faces):
                raise ArithmeticError("embeddings that are not finite")

        yield judged("FacePipeline.load", c, attempt(use), lambda _, c=c: "was loaded" if c.expect == "refused" else "")


# ---------------------------------------------------------------- galleries


def _sql(path, change):
    "Change a database behind the gallery's back"
    import sqlite3

    db = sqlite3.connect(path)
    try:
        change(db)
        db.commit()
        db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    finally:
        db.close()


def _cells(db):
    "Every table, column and kind of value in a database, whatever its layout"
    for (table,) in db.execute(
        "SELECT name FROM sqlite_master WHERE type='table' AND name NOT LIKE 'sqlite_%'"
    ).fetchall():
        for column in [r[1] for r in db.execute(f'PRAGMA table_info("{table}")').fetchall()]:
            for (kind,) in db.execute(f'SELECT DISTINCT typeof("{column}") FROM "{table}"').fetchall():
                yield table, column, kind


def _replace(old, new):
    "Exchange a value wherever it stands in a database"

    def change(db):
        for t, c, _ in list(_cells(db)):
            db.execute(f'UPDATE "{t}" SET "{c}"=? WHERE "{c}"=?', (new, old))

    return change


def galleries(scene, seed=0):
    "Gallery files: of another version, program or model, damaged, cut, with what nobody put there, and no files at all"
    import sqlite3

    rng, folder, whole = np.random.default_rng(seed), scene.home / "galleries", scene.home / "whole.db"
    folder.mkdir()
    with contextlib.closing(sqlite3.connect(scene.gallery)) as db:
        db.execute("VACUUM INTO ?", (str(whole),))  # one file, whatever the journal mode
    data = whole.read_bytes()
    db = sqlite3.connect(whole)
    version, cells = db.execute("PRAGMA user_version").fetchone()[0], list(_cells(db))
    tables = sorted({t for t, _, _ in cells})
    db.close()

    def case(kind, name, data=data, expect="refused", change=None, make=None):
        path = folder / f"{kind}, {name}.db"
        if make:
            make(path)
        else:
            path.write_bytes(data)
        if change:
            _sql(path, change)
        return Case(f"gallery {kind}", name, path, expect)

    def pragma(text):
        return lambda db: db.execute(text)

    for v in (0, version + 1, 7, 99, -1, 2**31 - 1):
        yield case("of another version", str(v), change=pragma(f"PRAGMA user_version={v}"))
    for v in (0, 1, 0x47504B47):
        yield case("of another program", str(v), change=pragma(f"PRAGMA application_id={v}"))
    yield case("of another model", "model", change=_replace(scene.pipe.model, "somebody-else-0000"))
    for share in (0, 0.0001, 0.01, 0.1, 0.2, 0.4, 0.6, 0.8, 0.95):
        yield case("cut short", str(share), data[: int(share * len(data))], "refused" if share < 0.5 else "either")
    for k in range(30):
        b = np.frombuffer(data, np.uint8).copy()
        n = (1, 5, 100)[k % 3]
        top = (100, len(b), len(b))[k // 3 % 3]
        np.bitwise_xor.at(b, rng.integers(0, top, n), (1 << rng.integers(0, 8, n)).astype(np.uint8))
        yield case("bit-flipped", str(k), b.tobytes(), "either")
    for t in tables:
        yield case("without a table", t, change=pragma(f'DROP TABLE "{t}"'), expect="either")
        yield case("with an empty table", t, change=pragma(f'DELETE FROM "{t}"'), expect="either")
    for t, c, kind in cells:
        if kind == "blob":
            for name, v in dict(
                odd=b"\0\1\2",
                empty=b"",
                zeros=bytes(256),
                nan=np.full(64, np.nan, "<f4").tobytes(),
                infinite=np.full(64, np.inf, "<f4").tobytes(),
                longer=np.full(128, 128**-0.5, "<f4").tobytes(),
                long=bytes(5_000_000),
            ).items():
                yield case(
                    "with other numbers",
                    f"{t}.{c} {name}",
                    change=lambda db, t=t, c=c, v=v: db.execute(f'UPDATE "{t}" SET "{c}"=?', (v,)),
                    expect="either" if name in ("longer", "long", "empty", "odd") else "refused",
                )
        for name, v in (("blob", b"\xff\xfe"), ("bad text", None), ("number", 7)):
            value = "CAST(x'fffe80' AS TEXT)" if v is None else "?"

            def put(db, t=t, c=c, v=v, value=value):
                with contextlib.suppress(sqlite3.IntegrityError):
                    db.execute(f'UPDATE "{t}" SET "{c}"={value}', () if v is None else (v,))

            yield case("with another type", f"{t}.{c} {name}", change=put, expect="either")
    for v in ("abc", "nan", "7", ""):
        yield case("with threshold", repr(v), change=_replace("0.5", v), expect="either")
    yield case("with a name", "control characters", change=_replace("Ann", "An\nn\x1b[31m\a"), expect="either")
    for t in tables:
        yield case(
            "with a trigger",
            t,
            change=pragma(f'CREATE TRIGGER evil AFTER INSERT ON "{t}" BEGIN DELETE FROM "{t}"; END'),
            expect="either",
        )
    for n, d in (
        ("text", b"a gallery, honestly\n" * 99),
        ("zeros", bytes(9999)),
        ("photograph", scene.good.read_bytes()),
        ("pickle", pickle.dumps(evils(scene.canary)["system"])),
        ("empty", b""),
        ("header alone", data[:100]),
    ):
        yield case("replaced", n, d)
    import sqlite3

    def foreign(p):
        _sql(p, pragma("CREATE TABLE meta(key TEXT, value TEXT)"))

    yield case("replaced", "other database", make=foreign)
    yield case(
        "replaced",
        "numpy archive",
        make=lambda p: np.savez(open(p, "wb"), names=np.array([evils(scene.canary)["system"]], object)),
    )
    yield case("replaced", "folder", make=Path.mkdir)
    yield case("replaced", "pipe", make=os.mkfifo)
    yield case("replaced", "missing", make=lambda p: None)
    yield case("replaced", "link to itself", make=lambda p: p.symlink_to(p.name))
    yield case("replaced", "endless", make=lambda p: p.symlink_to("/dev/zero"))
    for n in ("-wal", "-journal"):
        c = case("with a foreign journal", n, expect="either")
        Path(f"{c.source}{n}").write_bytes(rng.integers(0, 256, 4000, dtype=np.uint8).tobytes())
        yield c


def try_galleries(scene, cases):
    "Open each, ask who is in it, and identify a photograph"
    from facerec_nb.pipeline.gallery import Gallery

    faces = scene.pipe(scene.photo)
    for c in cases:

        def use(path=c.source):
            with contextlib.closing(Gallery.load(path)) as g:
                return g.people(), repr(g), scene.pipe.identify(faces, g)

        yield judged(
            "Gallery", c, attempt(noisy, use), lambda _, c=c: "was opened and searched" if c.expect == "refused" else ""
        )


# ---------------------------------------------------------------- tables


def prepared(scene, folder, photos):
    "A folder as `facerec_prepare` writes it, of copies of some photographs: name -> path"
    import pandas as pd
    from facerec_nb.datasets.celeba_files import ATTRIBUTES, BOX_COLUMNS, POINT_COLUMNS
    from facerec_nb.datasets.selected import SELECTED_COLUMNS

    (folder / "images").mkdir(parents=True)
    for name, path in photos.items():
        if path.is_symlink() or not path.is_file():
            (folder / "images" / name).symlink_to(path)
        else:
            os.link(path, folder / "images" / name)
    n = len(photos)
    box = scene.pipe(scene.photo)[0].box
    rows = pd.DataFrame(0, index=range(n), columns=list(ATTRIBUTES)).assign(
        image_id=list(photos),
        identity=[10 + i % 2 for i in range(n)],
        class_id=[i % 2 for i in range(n)],
        split="train",
        people="seen",
    )
    rows[BOX_COLUMNS] = [int(v) for v in (*box[:2], *(box[2:] - box[:2]))]
    x, y, w, h = rows[BOX_COLUMNS].iloc[0]
    rows[POINT_COLUMNS] = [
        v for a, b in ((0.3, 0.4), (0.7, 0.4), (0.5, 0.6), (0.35, 0.8), (0.65, 0.8)) for v in (x + a * w, y + b * h)
    ]
    rows[SELECTED_COLUMNS].to_csv(folder / "selected_images.csv", index=False)
    return folder


def tables(scene):
    "Broken `selected_images.csv`, each in a folder of its own with two photographs in order"
    import pandas as pd

    base = prepared(scene, scene.home / "tables" / "base", {"a.png": scene.good, "b.png": scene.good})
    text = (base / "selected_images.csv").read_text()
    rows = pd.read_csv(base / "selected_images.csv")

    def case(name, data, expect="refused"):
        folder = scene.home / "tables" / name
        folder.mkdir()
        (folder / "images").symlink_to(base / "images")
        path = folder / "selected_images.csv"
        if callable(data):
            data(path)
        elif isinstance(data, bytes):
            path.write_bytes(data)
        else:
            data.to_csv(path, index=False)
        return Case("table", name, folder, expect)

    head, first, second = text.splitlines()
    for name, data in {
        "empty": b"",
        "blank lines": b"\n\n\n",
        "header alone": head.encode() + b"\n",
        "no header": f"{first}\n{second}\n".encode(),
        "zeros": bytes(2000),
        "noise": bytes(range(256)) * 20,
        "photograph": scene.good.read_bytes(),
        "utf-16": text.encode("utf-16"),
        "semicolons": text.replace(",", ";").encode(),
        "open quote": f'{head}\n"{first}\n{second}\n'.encode(),
        "too many cells": f"{text}{second},1,2,3\n".encode(),
        "cut in a row": text[: -len(second) // 2].encode(),
        "json": b'{"image_id": 1}',
        "pickle": pickle.dumps(evils(scene.canary)["system"]),
        "header twice": f"{head}\n{text}".encode(),
        "bad text": text.replace("a.png", "caf\udce9.png").encode("utf-8", "surrogateescape"),
    }.items():
        yield case(name, data, "either" if name == "cut in a row" else "refused")
    for name, odd in dict(
        up="../../../outside/neighbour.txt",
        absolute=str(scene.home / "outside" / "neighbour.txt"),
        null="a\0b.png",
        nothing="",
        missing="c.png",
        here=".",
    ).items():
        yield case(f"name {name}", rows.assign(image_id=["a.png", odd]))
    yield case("same name twice", rows.assign(image_id="a.png"))
    for column in ("image_id", "identity", "class_id", "split", "people", "x_1", "height", "lefteye_x", "Smiling"):
        yield case(f"without {column}", rows.drop(columns=column))
    for column, bad in dict(
        split=("tset", "", 3),
        people=("known", ""),
        class_id=(-1, 7, 0.5, "x", ""),
        identity=("", 10),
        x_1=("", "left", "nan", "inf", 1e308, -(10**9)),
        width=(0, -5, "", "inf", 1e308),
        height=(0, "x"),
        lefteye_x=("", "x", "inf", 1e308),
    ).items():
        for v in bad:
            expect = "either" if column in BOXY or (column, v) == ("identity", 10) else "refused"
            yield case(f"{column} {v!r}", rows.astype(object).assign(**{column: [rows[column][0], v]}), expect)
    yield case("folder", Path.mkdir)
    yield case("pipe", os.mkfifo)
    yield case("missing", lambda p: None)
    yield case("link to itself", lambda p: p.symlink_to(p.name))
    yield case("endless", lambda p: p.symlink_to("/dev/zero"))


def foreign_tables(scene):
    "Broken annotations for `facerec_prepare`, and broken `aligned_pred_all.csv` for `facerec_evaluate`"
    from facerec_nb.faces.aligned import align
    from facerec_nb.datasets.synthetic import tiny_celeba

    home = scene.home / "tables of others"
    base = Path(tiny_celeba(home / "celeba", ids=2, per_id=2))
    prepared(scene, home / "prepared", {"a.png": scene.good, "b.png": scene.good})
    align(home / "prepared", scene.run, home / "aligned")

    def case(command, name, base, file, data):
        folder = home / f"{file}, {name}"
        folder.mkdir()
        for p in base.iterdir():
            if p.name != file:
                (folder / p.name).symlink_to(p.absolute())
        if callable(data):
            data(folder / file)
        else:
            (folder / file).write_bytes(data)
        return Case(f"table for {command}", f"{file}, {name}", folder)

    for command, place, file in [("facerec_prepare", base, p.name) for p in sorted(base.glob("*.csv"))] + [
        ("facerec_evaluate", home / "aligned", "aligned_pred_all.csv")
    ]:
        text = (place / file).read_text()
        head, *rows = text.splitlines()
        cells = rows[0].split(",")

        def swapped(i, v, head=head, rows=rows, cells=cells):
            return "\n".join([head, ",".join(v if j == i else x for j, x in enumerate(cells)), *rows[1:], ""]).encode(
                "utf-8", "surrogateescape"
            )

        for name, data in {
            "empty": b"",
            "blank lines": b"\n\n\n",
            "header alone": head.encode() + b"\n",
            "no header": "\n".join(rows).encode(),
            "zeros": bytes(2000),
            "noise": bytes(range(256)) * 20,
            "photograph": scene.good.read_bytes(),
            "utf-16": text.encode("utf-16"),
            "semicolons": text.replace(",", ";").encode(),
            "open quote": text.replace(rows[0], '"' + rows[0]).encode(),
            "too many cells": f"{text}{rows[0]},1,2\n".encode(),
            "cut": text.encode()[: len(text) * 2 // 3],
            "half a row": text.encode()[: -len(rows[-1]) // 2],
            "json": b'{"image_id": 1}',
            "pickle": pickle.dumps(evils(scene.canary)["system"]),
            "header twice": f"{head}\n{text}".encode(),
            "name that climbs": swapped(0, "../../../outside/neighbour.txt"),
            "absolute name": swapped(0, str(scene.home / "outside" / "neighbour.txt")),
            "null in the name": swapped(0, "a\0b.png"),
            "no name": swapped(0, ""),
            "bad text": swapped(0, "caf\udce9.jpg"),
            "text for a number": swapped(1, "x"),
            "infinite": swapped(1, "inf"),
            "nothing for a number": swapped(1, ""),
            "huge": swapped(1, "1e308"),
            "negative": swapped(len(cells) - 1, "-99999999999999999999"),
            "folder": Path.mkdir,
            "pipe": os.mkfifo,
            "missing": lambda p: None,
            "link to itself": lambda p: p.symlink_to(p.name),
            "endless": lambda p: p.symlink_to("/dev/zero"),
        }.items():
            yield case(command, name, place, file, data)


BOXY = ("x_1", "width", "height", "lefteye_x")  # a face with such a box may be skipped and listed instead


# ---------------------------------------------------------------- commands


def _told(entry, case, command, outcome, names, good=(0,)):
    "One `Result` of one command: an exit code that is promised; bad input is one line that names it"
    value, refusal, failure, seconds = outcome
    if refusal:
        failure = f"an InputError got out: {refusal}"
    if not failure:
        code, out, err = value
        lines = err.splitlines()
        if code == 1:
            if out or len(lines) != 1 or not lines[0].startswith(f"{command}: "):
                failure = f"not one line: {out[:300]!r} {err[:500]!r}"
            else:
                failure = (
                    "refused: " + lines[0]
                    if case.expect == "read"
                    else sentence(lines[0].removeprefix(f"{command}: "), *names)
                )
        elif code not in good:
            failure = f"exit code {code}: {err[:300]}"
        elif case.expect == "refused":
            failure = f"exit code {code}, nothing refused"
    return Result(entry, case.kind, case.name, seconds, failure)


@contextlib.contextmanager
def loaded(scene):
    "Commands take the scene's pipeline instead of reading the run again"
    from unittest.mock import patch
    from facerec_nb.pipeline.face_pipeline import FacePipeline

    with patch.object(FacePipeline, "load", lambda *_, **__: scene.pipe):
        yield


def try_single(scene, cases):
    "`facerec_identify` and `facerec_verify` on one photograph at a time"
    from facerec_nb.apps.commands import facerec_identify, facerec_verify

    with loaded(scene):
        for c in cases:
            if not isinstance(c.source, (str, Path)) or os.path.isdir(c.source):
                continue
            names = names_of(c.source) if str(c.source) else ()
            yield _told(
                "facerec_identify",
                c,
                "facerec_identify",
                attempt(quietly, facerec_identify, str(c.source), gallery=str(scene.gallery), run=str(scene.run)),
                names,
            )
            yield _told(
                "facerec_verify",
                c,
                "facerec_verify",
                attempt(quietly, facerec_verify, str(scene.good), str(c.source), run=str(scene.run), threshold=0.5),
                names,
                (0, 3, 4),
            )


def try_folders(scene, cases, folder, out):
    "`facerec_identify`, with drawings, and `facerec_enroll` on the folder of everything"
    import json
    from facerec_nb.apps.commands import facerec_enroll, facerec_identify
    from facerec_nb.datasets.photos import photos_below

    known, there = {str(c.source): c for c in cases}, [str(p) for p in photos_below(folder)]

    def rows(entry, s, bad, listed):
        if set(listed) != set(there):
            yield Result(
                entry,
                "all",
                "all",
                s,
                f"{len(set(listed) ^ set(there))} photographs are not answered, or answered twice",
            )
            return
        for p in there:
            c = known.get(p) or Case("no plain file", Path(p).name, p)
            why = sentence(bad[p], *names_of(p)) if p in bad else ""
            if p in bad and c.expect == "read":
                why = "refused: " + bad[p]
            if p not in bad and c.expect == "refused":
                why = "was read"
            yield Result(entry, c.kind, c.name, s / len(there), why)

    def lines(err, bad, extra):
        return (
            ""
            if len(err.splitlines()) == len(bad) + extra
            else f"{len(err.splitlines())} lines on stderr, {len(bad) + extra} expected: {err[:300]}"
        )

    value, refusal, failure, s = attempt(
        quietly,
        facerec_identify,
        str(folder),
        gallery=str(scene.gallery),
        run=str(scene.run),
        draw=str(out / "drawn"),
        json=True,
        limit=LIMIT * len(there),
    )
    if failure or refusal or value[0]:
        yield Result(
            "facerec_identify (folder)",
            "all",
            "all",
            s,
            failure or refusal or f"exit code {value[0]}: {value[2][-500:]}",
        )
    else:
        d = json.loads(value[1])
        bad = {r["file"]: r["problem"] for r in d["skipped"]}
        said = "".join(x for x in value[2].splitlines(True) if "red and blue look exchanged" not in x)
        yield Result("facerec_identify (folder)", "all", "lines", s / len(there), lines(said, bad, 1))
        yield from rows("facerec_identify (folder)", s, bad, [*bad, *(r["file"] for r in d["photos"])])
    value, refusal, failure, s = attempt(
        quietly,
        facerec_enroll,
        str(folder),
        str(out / "new.db"),
        run=str(scene.run),
        threshold=0.5,
        quality=0.0,
        json=True,
        limit=LIMIT * len(there),
    )
    if failure or refusal or value[0]:
        yield Result(
            "facerec_enroll (folder)", "all", "all", s, failure or refusal or f"exit code {value[0]}: {value[2][-500:]}"
        )
    else:
        table = json.loads(value[1])["rows"]
        place = {str(os.path.relpath(p, folder)).encode("utf-8", "backslashreplace").decode(): p for p in there}
        bad = {place[r["file"]]: r["problem"] for r in table if r["status"] == "unreadable"}
        said = "".join(x for x in value[2].splitlines(True) if "red and blue look exchanged" not in x)
        yield Result(
            "facerec_enroll (folder)",
            "all",
            "lines",
            s / len(there),
            lines(said, bad, sum(r["status"] == "no_face" or bool(r["problem"]) for r in table) - len(bad)),
        )
        yield from rows("facerec_enroll (folder)", s, bad, [place[r["file"]] for r in table])


def try_files(scene, cases, galleries):
    "The commands with bad checkpoints and bad galleries"
    from facerec_nb.apps.commands import facerec_enroll, facerec_identify, facerec_verify

    for c in cases:
        yield _told(
            "facerec_verify (run)",
            c,
            "facerec_verify",
            attempt(quietly, facerec_verify, str(scene.good), str(scene.good), run=str(c.source.parent), threshold=0.5),
            names_of(c.source),
        )
    with loaded(scene):
        for c in galleries:
            yield _told(
                "facerec_identify (gallery)",
                c,
                "facerec_identify",
                attempt(quietly, facerec_identify, str(scene.good), gallery=str(c.source), run=str(scene.run)),
                names_of(c.source),
            )
            if c.source.name.endswith("missing.db"):
                continue  # enrolling makes a new one

            def enrol(path=c.source):
                return quietly(facerec_enroll, str(scene.home / "people"), str(path), run=str(scene.run))

            lenient = Case(c.kind, c.name, c.source)  # it may be added to although it cannot be searched
            yield _told("facerec_enroll (gallery)", lenient, "facerec_enroll", attempt(enrol), names_of(c.source))


def try_tables(scene, cases, photos, out):
    "`facerec_align` on broken tables, and on a folder in order whose photographs are not"
    import pandas as pd
    from facerec_nb.apps.commands import facerec_align

    run = str(scene.run)
    for i, c in enumerate(cases):
        yield _told(
            "facerec_align",
            c,
            "facerec_align",
            attempt(quietly, facerec_align, str(c.source), str(out / f"aligned{i}"), run),
            ("selected_images.csv", str(c.source)),
        )
    usable = {
        f"{i:03}{p.source.suffix}": p
        for i, p in enumerate(photos)
        if isinstance(p.source, Path)
        and os.path.isfile(p.source)
        and p.source.suffix
        and p.source.stat().st_size < 10**7
    }
    folder = prepared(scene, scene.home / "mixed", {n: p.source for n, p in usable.items()})
    value, refusal, failure, s = attempt(
        quietly, facerec_align, str(folder), str(out / "mixed"), run, limit=LIMIT * len(usable)
    )
    if failure or refusal or value[0]:
        yield Result(
            "facerec_align (photographs)",
            "all",
            "all",
            s,
            failure or refusal or f"exit code {value[0]}: {value[2][-500:]}",
        )
        return
    skipped = pd.read_csv(out / "mixed" / "skipped.csv").set_index("image_id").reason
    done = set(pd.read_csv(out / "mixed" / "aligned_pred_all.csv").image_id)
    for n, c in usable.items():
        why = "" if (n in done) != (n in skipped.index) else "neither aligned nor skipped, or both"
        if n in done and c.expect == "refused":
            why = "was read"
        if n in skipped.index:
            why = why or sentence(
                skipped[n], n, "the face", "pixels", "points"
            )  # or the face lies outside of a small picture
        yield Result("facerec_align (photographs)", c.kind, c.name, s / len(usable), why)


def try_foreign_tables(cases, scene, out):
    "`facerec_prepare` and `facerec_evaluate` on broken tables; what is left of a table may be used, the rest is listed"
    from facerec_nb.apps.commands import facerec_evaluate, facerec_prepare

    for i, c in enumerate(cases):
        command = facerec_prepare if c.kind.endswith("facerec_prepare") else facerec_evaluate
        how = (
            dict(out=str(out / f"prepared{i}"), ids=1, per_id=2, min_box=10, keep_blurry=True)
            if command is facerec_prepare
            else dict(run=str(scene.run), names="af")
        )
        yield _told(
            command.__name__,
            c,
            command.__name__,
            attempt(quietly, command, str(c.source), **how),
            (c.name.split(", ")[0], str(c.source), "the recipe", "people", "image"),
        )
