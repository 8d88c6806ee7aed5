"""Packs a tuned network, or its weights averaged with the start's, as facerec_nb/weights/embedder_celeba.npz.

    python benchmarks/ship_tuned.py [--tuned runs/tuning/held.npz] [--share 1]

Prints the SHA-256 that engines/dlib_onnx has to expect; threshold, probability, scales and recorded answers follow by
`python benchmarks/ship_faces.py --embedder celeba`.
"""
import argparse
import hashlib
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from facerec_nb.core.files import atomic_path
from facerec_nb.models.dlib_weights import pack_weights
from studies.tuning import between, tuned_weights

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tuned", default="runs/tuning/held.npz", help="weights of studies.distil, or a checkpoint")
    parser.add_argument("--share", type=float, default=1., help="of its weights in the mean with the start's")
    parser.add_argument("--out", default="facerec_nb/weights/embedder_celeba.npz", help="the file")
    args = parser.parse_args()
    net = between(tuned_weights(args.tuned), args.share)
    folded = [(m.weight.detach().contiguous().numpy(), m.bias.detach().numpy())
              for m in net.modules() if isinstance(m, torch.nn.Conv2d)]
    data = pack_weights(folded, net.fc.weight.detach().numpy().T)
    with atomic_path(args.out) as temp: temp.write_bytes(data)
    print(args.out, len(data), hashlib.sha256(data).hexdigest())
