"""Keep a demo's numbers: report.json becomes NAME.json in results/demo/, its headlines go into summary.json.

    python tools/record_demo.py runs/demo drawn-60x20
"""
import sys
from pathlib import Path

from facerec_nb.apps.demo import SUMMARY
from facerec_nb.core.files import read_json, write_json
from facerec_nb.core.records import record, write_record

OUT = Path(__file__).resolve().parent.parent/"results/demo"


def keep(run, name):
    "The record of one run, with the seconds of its stages"
    rec, stages = read_json(Path(run)/"report.json"), read_json(Path(run)/"stages.json")
    rec["curves"]["stage_seconds"] = {k: round(v["seconds"], 1) for k, v in stages.items()}
    write_json(OUT/f"{name}.json", rec)


def together(runs):
    "What the data of several runs are called, and how many there are"
    data = [r["data"] for r in runs.values()]
    return dict(name=", ".join(runs), fingerprint=",".join(d["fingerprint"] for d in data),
                n_images=sum(d["n_images"] for d in data), n_people=sum(d["n_people"] for d in data))


def main(run, name):
    keep(run, name)
    runs = {p.stem: read_json(p) for p in sorted(OUT.glob("*.json")) if p.stem != "summary"}
    first = next(iter(runs.values()))
    metrics = {f"{k}_{n}": r["metrics"][k] for n, r in runs.items() for k in SUMMARY if k in r["metrics"]}
    commands = "; ".join(r["command"] for r in runs.values())
    write_record(OUT/"summary.json", record("The headline numbers of the demo's runs, by run", commands, together(runs),
                                            metrics, seeds=first["seeds"], device=first["device"]))


if __name__ == "__main__": main(*sys.argv[1:])
