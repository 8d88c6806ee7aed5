"""Every hostile and odd input of tests/faults/hostile.py at every door. Writes results/pipeline/hostile.json.

    python benchmarks/hostile.py [--per_kind 4] [--out results/pipeline/hostile.json]
"""

import argparse
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests" / "faults"))
import hostile

from facerec_nb.core.files import fingerprint
from facerec_nb.core.records import metric, record, write_record


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--per_kind",
        type=int,
        default=4,
        help="photographs of each kind that also go one by one through the slow doors",
    )
    parser.add_argument("--out", default="results/pipeline/hostile.json")
    args = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as home:
        scene = hostile.Scene(Path(home) / "scene")
        out = scene.home / "out"
        out.mkdir()
        photos, values, checkpoints = (
            hostile.photographs(scene),
            list(hostile.values(scene)),
            list(hostile.checkpoints(scene)),
        )
        galleries, tables, foreign = (
            list(hostile.galleries(scene)),
            list(hostile.tables(scene)),
            list(hostile.foreign_tables(scene)),
        )
        cases, few = (
            [*photos, *values, *checkpoints, *galleries, *tables, *foreign],
            hostile.sample(photos, args.per_kind),
        )
        own = [out, scene.home / "galleries", scene.home / "mixed"]  # what the commands are told to write
        before, rows = hostile.snapshot(scene.home, *own), []
        for door in (
            lambda: hostile.try_reading(photos + values),
            lambda: hostile.try_folders(scene, photos, scene.home / "photos", out),
            lambda: hostile.try_checkpoints(scene, checkpoints),
            lambda: hostile.try_galleries(scene, galleries),
            lambda: hostile.try_files(scene, hostile.sample(checkpoints, 1), galleries),
            lambda: hostile.try_tables(scene, tables, few, out),
            lambda: hostile.try_foreign_tables(foreign, scene, out),
            lambda: hostile.try_pipeline(scene, few + values),
            lambda: hostile.try_pipeline(scene, few + values, whole=True),
            lambda: hostile.try_many(scene, few + values, None),
            lambda: hostile.try_single(scene, few),
        ):
            start = time.perf_counter()
            new = list(door())
            rows += new
            print(
                f"{time.perf_counter() - start:7.1f} s  {len(new):5} tries  "
                f"{sum(bool(r.failure) for r in new):3} failures  {', '.join(sorted({r.entry for r in new}))}",
                flush=True,
            )
        touched = hostile.changes(before, hostile.snapshot(scene.home, *own))
        run = scene.canary.exists()
    bad = [r for r in rows if r.failure]
    failed = {(r.kind, r.name) for r in bad}
    for r in bad:
        print(r.entry, "|", r.kind, "|", r.name, "|", r.failure[:200])
    for p in touched:
        print("changed:", p)
    n, kinds = len(cases), Counter(c.kind for c in cases)
    curves = dict(
        kinds={
            k: dict(
                inputs=v,
                refused=sum(c.kind == k and c.expect == "refused" for c in cases),
                read=sum(c.kind == k and c.expect == "read" for c in cases),
                failures=sum(f[0] == k for f in failed),
            )
            for k, v in sorted(kinds.items())
        },
        doors={
            d: dict(tries=sum(r.entry == d for r in rows), failures=sum(r.entry == d for r in bad))
            for d in sorted({r.entry for r in rows})
        },
    )
    metrics = dict(
        hostile_inputs=metric(n, unit="inputs"),
        hostile_failures=metric(len(failed), n=n, unit="inputs"),
        tries=metric(len(rows), unit="inputs x doors"),
        failed_tries=metric(len(bad), n=len(rows), unit="tries"),
        executed=metric(int(run), n=n, unit="inputs"),
        written_outside=metric(len(touched), n=n, unit="files"),
        slowest_s=metric(max(r.seconds for r in rows), n=len(rows), unit=f"s, limit {hostile.LIMIT}"),
    )
    rec = record(
        "hostile and odd inputs at every door: refused in one sentence or read right; "
        "a failure crashes, hangs, says no sentence, or reads wrongly",
        f"python benchmarks/hostile.py --per_kind {args.per_kind}",
        dict(
            name="made by tests/faults/hostile.py from one drawn photograph",
            fingerprint=fingerprint(sorted((c.kind, c.name) for c in cases)),
            n_images=len(photos),
            n_people=1,
        ),
        metrics,
        curves=curves,
        seeds=[0],
    )
    write_record(args.out, rec)
    for k, m in metrics.items():
        print(f"{k:18} {m['value']:10.2f}  n={m['n']}  {m['unit']}")


if __name__ == "__main__":
    main()
