"""Packs a tuned network, its weights averaged with the start's, as facerec_nb/weights/embedder_celeba.npz.

    python benchmarks/ship_tuned.py [--tuned runs/recognition/arcface_faces-0/best_af.pth] [--share 0.5]

Prints the SHA-256 that engines/dlib_onnx has to expect; threshold, probability and recorded answers follow by
`python benchmarks/ship_faces.py --embedder celeba`.
"""
import argparse
import hashlib
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from facerec_nb.core.files import atomic_path
from facerec_nb.models.checkpoint import load_checkpoint
from facerec_nb.models.dlib_weights import pack_weights
from studies.tuning import between

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tuned", default="runs/recognition/arcface_faces-0/best_af.pth", help="the checkpoint")
    parser.add_argument("--share", type=float, default=.5, help="of its weights in the mean with the start's")
    parser.add_argument("--out", default="facerec_nb/weights/embedder_celeba.npz", help="the file")
    args = parser.parse_args()
    weights = load_checkpoint(args.tuned, kind="embedder")["weights"]["backbone"]
    net = between({k.removeprefix("backbone."): v for k, v in weights.items()}, args.share)
    folded = [(m.weight.detach().contiguous().numpy(), m.bias.detach().numpy())
              for m in net.modules() if isinstance(m, torch.nn.Conv2d)]
    data = pack_weights(folded, net.fc.weight.detach().numpy().T)
    with atomic_path(args.out) as temp: temp.write_bytes(data)
    print(args.out, len(data), hashlib.sha256(data).hexdigest())
