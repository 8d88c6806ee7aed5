"""The headline numbers of the pipeline out of its records; what was not measured is null.

Writes results/pipeline/summary.json.

    python benchmarks/pipeline_summary.py [--results results/pipeline]

Run after detection.py, photos.py (and --fast --out results/pipeline/photos_fast.json), fpir.py, pipeline_speed.py,
startup.py, batches.py, busy.py, gallery.py, hostile.py, kills.py, turned.py, crowd.py, public_cases.py, cluster.py,
quality.py and probability.py. A name of the photographs without a number is the exam with three references a person.
"""

import argparse
from pathlib import Path

from facerec_nb.core.files import fingerprint, read_json
from facerec_nb.core.records import metric, record, show_metric, write_record

HEADLINE = dict(
    found_share=("detection", "found"),
    rank1_photos_1=("photos", "rank1_1"),
    rank1_photos=("photos", "rank1_3"),
    rank1_photos_5=("photos", "rank1_5"),
    dir_at_fpir01_photos_1=("photos", "dir_at_fpir01_1"),
    dir_at_fpir01_photos=("photos", "dir_at_fpir01_3"),
    dir_at_fpir01_photos_5=("photos", "dir_at_fpir01_5"),
    fpir_ratio_worst=("fpir", "fpir_ratio_worst"),
    rank1_photos_fast=("photos_fast", "rank1_3"),
    dir_at_fpir01_photos_fast=("photos_fast", "dir_at_fpir01_3"),
    ms_per_photo=("speed", "onnx_ms_1"),
    ms_per_photo_fast=("speed", "fast_ms_1"),
    ms_per_photo_facenet_pytorch=("speed", "facenet_ms_1"),
    times_faster=("speed", "ratio_onnx_facenet_1"),
    times_faster_fast=("speed", "ratio_fast_facenet_1"),
    seconds_to_first_answer=("startup", "seconds_to_first_answer"),
    install_mb=("startup", "install_mb"),
    photos_per_second=("batches", "photos_per_second"),
    photos_per_second_fast=("batches", "photos_per_second_fast"),
    demo_busy_ratio=("busy", "demo_busy_ratio"),
    gallery_1m_ms=("gallery", "gallery_1m_ms"),
    gallery_1m_recall=("gallery", "gallery_1m_recall"),
    gallery_1m_load_seconds=("gallery", "gallery_1m_load_seconds"),
    hostile_inputs=("hostile", "hostile_inputs"),
    hostile_failures=("hostile", "hostile_failures"),
    cluster_bcubed_f_400=("cluster", "cluster_bcubed_f_400"),
    cluster_bcubed_f_2200=("cluster", "cluster_bcubed_f_2200"),
    kills=("kills", "kills"),
    kills_lost=("kills", "kills_lost"),
    right_first_upside_down=("turned", "right_first_180"),
    crowd_1600_seconds=("crowd", "crowd_1600_seconds"),
    crowd_ratio=("crowd", "crowd_ratio"),
    public_cases_right=("public_cases", "public_cases_right"),
    poor_reference_named=("quality", "poor_reference_named"),
    good_answers_lost=("quality", "good_answers_lost"),
    openset_probability_ece=("probability", "openset_probability_ece"),
)

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--results", default="results/pipeline", type=Path)
    args = parser.parse_args()
    got = {n: read_json(p) for n in {n for n, _ in HEADLINE.values()} if (p := args.results / f"{n}.json").exists()}
    missing = [f"{n}.json has no {k}" for n, k in HEADLINE.values() if n in got and k not in got[n]["metrics"]]
    if missing:
        raise SystemExit("; ".join(missing))
    metrics = {name: got[n]["metrics"][k] if n in got else metric(None) for name, (n, k) in HEADLINE.items()}
    data = dict(
        name=", ".join(sorted(got)),
        fingerprint=fingerprint({n: r["data"]["fingerprint"] for n, r in got.items()}),
        n_images=sum(r["data"]["n_images"] for r in got.values()),
        n_people=None,
    )
    write_record(
        args.results / "summary.json",
        record(
            "The headline numbers of the pipeline",
            "python benchmarks/pipeline_summary.py",
            data,
            metrics,
            curves=dict(records={n: dict(version=r["version"], date=r["date"]) for n, r in sorted(got.items())}),
        ),
    )
    for k, m in metrics.items():
        print(f"{k:30s} {show_metric(m)}  {m['unit']}")
