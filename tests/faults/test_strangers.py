"""Checkpoints from strangers: whatever a file claims, it is refused in one sentence, before memory is taken for it
and without anything in it being run."""

import os
import pickle
import resource
import struct
import zipfile

import pytest
import torch

from facerec_nb.faces.landmarks import LandmarkModel
from facerec_nb.models.backbones import Embedder
from facerec_nb.models.checkpoint import load_checkpoint, save_checkpoint
from facerec_nb.apps.commands import facerec_verify
from facerec_nb.faces.embedder import FaceEmbedder
from facerec_nb.core.files import InputError
from facerec_nb.models.heads import create_head
from facerec_nb.models.hourglass import StackedHourglass

BIG = 10**12


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    out = tmp_path_factory.mktemp("good")
    emb, head, net = (
        Embedder("tiny", 8, 32),
        create_head("arcface", 8, 3),
        StackedHourglass(stacks=1, channels=8, depth=1, input_size=32),
    )
    save_checkpoint(
        out / "best_af.pth",
        "embedder",
        dict(backbone=emb.state_dict(), head=head.state_dict()),
        dict(backbone=emb.arch, head=head.arch),
        dict(size=32, colour="RGB", template="arcface"),
        classes=[1, 2, 3],
    )
    save_checkpoint(
        out / "best_stacked_hg.pth",
        "landmarks",
        dict(model=net.state_dict()),
        net.arch,
        dict(size=32, shrink=0.05, square=True, flip=True, colour="RGB"),
    )
    return out


def rewritten(path, out, change=lambda name, data: data, more=(), compress=zipfile.ZIP_STORED):
    "The file with its parts changed, and its checksums right"
    with zipfile.ZipFile(path) as a, zipfile.ZipFile(out, "w", compress) as b:
        for n in a.namelist():
            b.writestr(n, change(n, a.read(n)))
        for n, data in more:
            b.writestr(n, data)
    return out


def structure(change):
    return lambda name, data: change(data) if name.endswith("data.pkl") else data


def refused(path, says=None):
    "One sentence that names the file, at once, and no memory taken"
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError, match=says) as e:
        load_checkpoint(path)
    assert path.name in str(e.value) and "\n" not in str(e.value) and len(str(e.value)) < 500
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000, "kB"


def test_the_honest_file_is_read_also_when_another_program_stored_it_again(good, tmp_path):
    for n in ("best_af.pth", "best_stacked_hg.pth"):
        assert load_checkpoint(rewritten(good / n, tmp_path / n))["schema"] == 1


@pytest.mark.parametrize(
    "tensor",
    [
        torch.zeros(1).expand(BIG),
        torch.zeros(1).as_strided((10**6, 10**6), (0, 0)),
        torch.zeros(4).as_strided((3, 2), (1, 1)),
    ],
    ids=["expanded", "matrix", "overlapping"],
)
def test_a_tensor_larger_than_its_bytes(tensor, tmp_path):
    torch.save(
        dict(schema=1, kind="embedder", weights=dict(backbone=dict(w=tensor)), arch={}, preprocessing={}),
        tmp_path / "big.pth",
    )
    assert (tmp_path / "big.pth").stat().st_size < 5000
    refused(tmp_path / "big.pth", "cannot hold it")


def test_a_storage_that_claims_more_than_lies_in_the_file(good, tmp_path):
    "torch would read beyond the end of its buffer"
    torch.save(dict(schema=1, kind="x", weights=dict(w=dict(w=torch.zeros(77)))), tmp_path / "a.pth")

    def grow(data):
        assert data.count(b"K\x4d") >= 2
        return data.replace(b"K\x4d", b"J" + struct.pack("<i", 10**9))

    refused(rewritten(tmp_path / "a.pth", tmp_path / "b.pth", structure(grow)), "cannot hold it")


def test_bombs_of_the_container(good, tmp_path):
    refused(
        rewritten(
            good / "best_af.pth",
            tmp_path / "packed.pth",
            compress=zipfile.ZIP_DEFLATED,
            more=[("best_af/data/zeros", bytes(10**8))],
        ),
        "packed by another program",
    )
    data = bytearray((good / "best_af.pth").read_bytes())
    at = data.rindex(b"PK\x01\x02")
    while at > 0:  # every entry of the directory points at the same, largest part
        struct.pack_into("<II", data, at + 20, 2**31 - 1, 2**31 - 1)
        at = data.rfind(b"PK\x01\x02", 0, at)
    (tmp_path / "overlap.pth").write_bytes(data)
    refused(tmp_path / "overlap.pth", "on top of each other|damaged")
    with zipfile.ZipFile(good / "best_af.pth") as z:
        name = next(n for n in z.namelist() if n.endswith("data.pkl"))
    with pytest.warns(UserWarning, match="Duplicate"):
        rewritten(good / "best_af.pth", tmp_path / "twice.pth", more=[(name, b"x")])
    refused(tmp_path / "twice.pth", "on top of each other")


@pytest.mark.parametrize(
    "ops",
    [
        b"\x80\x02cbuiltins\nbytearray\nJ\xff\xff\xff\x7f\x85R.",
        b"\x80\x02}r\xff\xff\xff\x7f.",
        b"\x80\x05\x96\xff\xff\xff\xff\xff\x00\x00\x00.",
        b"\x80\x04\x95\xff\xff\xff\xff\xff\x00\x00\x00}.",
        b"\x80\x02]" + b"h\x00" * 3 + b".",
        b"\x80\x02cos\nsystem\nX\x04\x00\x00\x00trueq\x01\x85R.",
        b"",
        b"\x80\x02}",
        b"\x80\x02cbuiltins\neval\n.",
    ],
    ids=["bytearray", "memo", "bytes", "frame", "memory", "system", "empty", "endless", "eval"],
)
def test_structures_that_run_or_swell(ops, good, tmp_path):
    refused(rewritten(good / "best_af.pth", tmp_path / "ops.pth", structure(lambda _: ops)))


def test_every_cut_and_many_flipped_bits_of_the_structure(good, tmp_path):
    """The structure is cut after, or changed at, a byte: the file is refused, or is read with what can be changed
    without harm (a name, a number)"""
    with zipfile.ZipFile(good / "best_stacked_hg.pth") as z:
        pkl = z.read(next(n for n in z.namelist() if n.endswith("data.pkl")))
    rng, outcomes = torch.Generator().manual_seed(0), []
    for k in torch.randint(len(pkl), (25,), generator=rng).tolist():
        for change in (lambda d: d[:k], lambda d: d[:k] + bytes([d[k] ^ 1 << k % 8]) + d[k + 1 :]):
            path = rewritten(good / "best_stacked_hg.pth", tmp_path / "fuzzed.pth", structure(change))
            try:
                load_checkpoint(path, "landmarks")
                outcomes.append(True)
            except InputError:
                outcomes.append(False)
    assert outcomes.count(False) > 25


@pytest.mark.parametrize(
    "part, arch, says",
    [
        ("head", dict(n_classes=BIG), "(1000000000000, 8)"),
        ("backbone", dict(emb_dim=10**9), "(1000000000, 160)"),
        ("backbone", dict(name="evilnet"), "no backbone 'evilnet'"),
        ("head", dict(name="evil"), "no head 'evil'"),
        ("backbone", dict(size=10**9), "in the Embedder"),
        ("backbone", dict(pretrained=True), "does not say how its backbone is built"),
        ("head", dict(centres=10**9), "in the ArcFaceHead"),
        ("head", dict(n_classes="3"), "cannot be built"),
    ],
)
def test_an_arch_that_asks_for_another_model(part, arch, says, good, tmp_path, capsys):
    ck = load_checkpoint(good / "best_af.pth")
    ck["arch"][part] |= arch
    torch.save(ck, tmp_path / "best_af.pth")
    with pytest.raises(InputError) as e:
        FaceEmbedder.load(tmp_path / "best_af.pth")
    assert says in str(e.value) and "\n" not in str(e.value) and "best_af.pth" in str(e.value)
    refused(tmp_path / "best_af.pth")


@pytest.mark.parametrize(
    "arch",
    [dict(stacks=10**9), dict(depth=10**9), dict(channels=10**9), dict(n_points=10**9), dict(input_size=7)],
    ids=str,
)
def test_a_landmark_network_out_of_proportion(arch, good, tmp_path):
    ck = load_checkpoint(good / "best_stacked_hg.pth")
    ck["arch"] |= arch
    torch.save(ck, tmp_path / "best_stacked_hg.pth")
    with pytest.raises(InputError, match="best_stacked_hg.pth") as e:
        LandmarkModel.load(tmp_path / "best_stacked_hg.pth")
    assert "\n" not in str(e.value)


def test_a_preprocessing_out_of_proportion_and_the_command(good, tmp_path, capsys):
    ck = load_checkpoint(good / "best_af.pth")
    ck["preprocessing"]["size"] = 10**9
    torch.save(ck, tmp_path / "best_af.pth")
    refused(tmp_path / "best_af.pth", "4,096")
    assert facerec_verify("a.jpg", "b.jpg", run=str(tmp_path), threshold=0.5) == 1
    assert capsys.readouterr().err.count("\n") == 1


def test_nothing_was_run(tmp_path):
    "The classical one, in the old and in the new container"

    class Evil:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "owned"),)

    torch.save(dict(schema=1, kind="x", weights=Evil()), tmp_path / "new.pth")
    (tmp_path / "old.pth").write_bytes(pickle.dumps(Evil()))
    for n in ("new.pth", "old.pth"):
        refused(tmp_path / n, "could run code")
    assert not (tmp_path / "owned").exists()
