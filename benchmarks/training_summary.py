"""The headline numbers of the training path out of the records that exist, null where there is none. Writes
results/training/summary.json.

python benchmarks/training_summary.py [--results results/training]
"""

import argparse
from pathlib import Path

from facerec_nb.core.files import fingerprint, read_json
from facerec_nb.core.records import metric, record, show_metric, write_record

HEADLINE = (
    "annotations_ratio",
    "crop_decode_ratio",
    "cpu_throughput_ratio",
    "gpu_throughput_ratio",
    "resume_kills",
    "resume_exact",
    "course_minutes_gpu",
)

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", default="results/training", type=Path)
    args = parser.parse_args()
    got = {p.stem: read_json(p) for p in sorted(args.results.glob("*.json")) if p.stem != "summary"}
    if not got:
        raise SystemExit(f"{args.results} holds no record: run the benchmarks first")
    metrics, source = {}, {}
    for name in HEADLINE:
        where = [n for n, r in got.items() if r["metrics"].get(name, {}).get("value") is not None]
        if len(where) > 1:
            raise SystemExit(f"{name} is in {' and in '.join(where)}: remove one")
        metrics[name], source[name] = (got[where[0]]["metrics"][name], where[0]) if where else (metric(None), None)
    data = dict(
        name=", ".join(got),
        fingerprint=fingerprint({n: r["data"]["fingerprint"] for n, r in got.items()}),
        n_images=sum(r["data"]["n_images"] or 0 for r in got.values()),
        n_people=None,
    )
    write_record(
        args.results / "summary.json",
        record(
            "The headline numbers of the training path",
            "python benchmarks/training_summary.py",
            data,
            metrics,
            curves=dict(source=source, records={n: dict(version=r["version"], date=r["date"]) for n, r in got.items()}),
        ),
    )
    for k, m in metrics.items():
        print(f"{k:22s} {show_metric(m)}  {m['unit']}")
