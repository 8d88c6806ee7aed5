"Killed for real and resumed: the same bits; and the state that a CPU in float32 does not have, the loss scaler's."

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from facerec_nb.models.checkpoint import load_checkpoint, save_checkpoint
from facerec_nb.core.files import read_json
from facerec_nb.models.training import pack_state, unpack_state

ROOT = Path(__file__).resolve().parents[2]


def test_a_killed_training_ends_with_the_same_bits(tmp_path):
    "Two kills of the benchmark that does twenty: one inside a step, one inside the writing of a checkpoint"
    r = subprocess.run(
        [sys.executable, ROOT / "benchmarks/resume_kills.py", "--kills", "2", "--seed", "4", "--out", tmp_path],
        capture_output=True,
        text=True,
        timeout=250,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )
    assert r.returncode == 0, (r.stdout + r.stderr)[-4000:]
    rec = read_json(tmp_path / "resume.json")
    m = {k: v["value"] for k, v in rec["metrics"].items()}
    assert m["resume_kills"] == m["resume_exact"] == 2 and m["left_over"] == 0 and m["compared"] > 100
    assert {next(iter(t)) for t in rec["curves"]["trials"]} == {"step", "write"}


@pytest.mark.skipif(not hasattr(torch.amp, "GradScaler"), reason="this torch scales losses on CUDA only")
def test_the_loss_scale_goes_on_where_it_was(tmp_path):
    "float16 needs a GPU in `fit`; its scaler is saved and loaded by the same two functions, here with the CPU's"

    def made():
        net = nn.Linear(3, 2)
        scaler = torch.amp.GradScaler("cpu", init_scale=64.0, growth_interval=2)
        return net, torch.optim.AdamW(net.parameters()), scaler

    net, opt, scaler = made()
    for _ in range(5):
        scaler.scale(net(torch.ones(1, 3)).sum()).backward()
        scaler.step(opt)
        scaler.update()
        opt.zero_grad()
    assert scaler.get_scale() == 256
    path = save_checkpoint(tmp_path / "last.pth", "toy", {}, {}, {}, **pack_state(net, opt, scaler))
    again, opt2, scaler2 = made()
    unpack_state(load_checkpoint(path), again, opt2, scaler2)
    assert scaler2.state_dict() == scaler.state_dict()
    for p, q in zip(net.parameters(), again.parameters()):
        assert torch.equal(opt.state[p]["exp_avg"], opt2.state[q]["exp_avg"])
