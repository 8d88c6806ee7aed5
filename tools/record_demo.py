"""Keep a demo's numbers: its report.json becomes results/demo/NAME.json, and its headline numbers go into results/demo/summary.json.

    python tools/record_demo.py runs/demo drawn-60x20
"""
import sys
from pathlib import Path

from facerec_nb.demo import SUMMARY
from facerec_nb.files import read_json, write_json
from facerec_nb.records import record, write_record

OUT = Path(__file__).resolve().parent.parent/"results/demo"


def main(run, name):
    rec, stages = read_json(Path(run)/"report.json"), read_json(Path(run)/"stages.json")
    rec["curves"]["stage_seconds"] = {k: round(v["seconds"], 1) for k, v in stages.items()}
    write_json(OUT/f"{name}.json", rec)
    runs = {p.stem: read_json(p) for p in sorted(OUT.glob("*.json")) if p.stem != "summary"}
    first = next(iter(runs.values()))
    write_record(OUT/"summary.json", record("The headline numbers of the demo's runs, by run", "; ".join(r["command"] for r in runs.values()),
                 dict(name=", ".join(runs), fingerprint=",".join(r["data"]["fingerprint"] for r in runs.values()), n_images=sum(r["data"]["n_images"] for r in runs.values()),
                      n_people=sum(r["data"]["n_people"] for r in runs.values())),
                 {f"{k}_{n}": r["metrics"][k] for n, r in runs.items() for k in SUMMARY if k in r["metrics"]}, seeds=first["seeds"], device=first["device"]))


if __name__ == "__main__": main(*sys.argv[1:])
