"""Landmarks on real photographs: the study behind results/landmarks/*.json; see `studies/landmarks.py`.

    python benchmarks/landmarks.py --train big:0 big:1 big:2     # train (or go on with) recipe `big` with seeds 0, 1, 2
    python benchmarks/landmarks.py                               # measure everything that is trained, write the records
"""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from studies.landmarks import main

if __name__ == "__main__": main()
