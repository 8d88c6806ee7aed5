"""Landmarks on real photographs: the study behind results/landmarks/*.json; see `studies/landmarks.py`.

    python benchmarks/landmarks.py --train big_first:0 big:0     # train (or go on with) these recipes with seed 0
    python benchmarks/landmarks.py                               # measure everything that is trained, write the records
"""
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from studies.landmarks import main

if __name__ == "__main__": main()
