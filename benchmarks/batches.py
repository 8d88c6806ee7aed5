"""Photographs per second when a folder of them is streamed through the pipeline on all cores. Writes
results/pipeline/batches.json.

    python benchmarks/batches.py [--data ../shared/data/celeba-photos-40] [--photos 200] [--rounds 5]

Decoding, finding, points and embeddings, with the default settings and with fast=True, in turns: in threads that look
ahead; in one thread; and in threads that look ahead but ask for the points of each photograph alone (`apart`).
Processor time says how far the cores were shared with others: alone, two cores do two seconds of it a second. Where
other programs run, `chrt -r 5` in front lets it go first.
"""

import argparse, os, time
from pathlib import Path

import cv2
import numpy as np

from facerec_nb import FacePipeline
from facerec_nb.core.files import fingerprint
from facerec_nb.core.records import metric, record, show_metric, write_record
from facerec_nb.datasets.photos import photos_below
from facerec_nb.pipeline import face_pipeline

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="../shared/data/celeba-photos-40", type=Path)
    parser.add_argument("--photos", default=200, type=int)
    parser.add_argument("--rounds", default=5, type=int)
    parser.add_argument("--threads", default=os.cpu_count(), type=int)
    parser.add_argument("--out", default="results/pipeline/batches.json")
    args = parser.parse_args()
    cv2.setNumThreads(args.threads)
    photos = list(photos_below(args.data))[: args.photos]
    pipes = {name: FacePipeline.load(threads=args.threads, fast=name == "fast") for name in ("default", "fast")}
    speed, work, ahead, few = {}, {}, FacePipeline._threads, face_pipeline.FEW
    ways = (("ahead", ahead, few), ("one by one", lambda self: 1, few), ("apart", ahead, 1))  # threads, photographs
    for _ in range(args.rounds):
        for name, pipe in pipes.items():
            for way, threads, together in ways:
                FacePipeline._threads, face_pipeline.FEW = threads, together
                clock, processor = time.perf_counter(), time.process_time()
                n = sum(1 for _ in pipe.stream(photos))
                clock, processor = time.perf_counter() - clock, time.process_time() - processor
                speed.setdefault((name, way), []).append(n / clock)
                work.setdefault((name, way), []).append(1000 * processor / n)
                print(f"{name:8s} {way:11s} {n / clock:6.1f} a second, {1000 * processor / n:5.1f} ms")

    def told(values, unit):
        return metric(float(np.median(values)), min(values), max(values), n=len(values), unit=unit)

    metrics = dict(
        photos_per_second=told(speed["default", "ahead"], "photographs a second"),
        photos_per_second_one_by_one=told(speed["default", "one by one"], "photographs a second"),
        photos_per_second_fast=told(speed["fast", "ahead"], "photographs a second"),
        photos_per_second_fast_one_by_one=told(speed["fast", "one by one"], "photographs a second"),
        processor_ms=told(work["default", "ahead"], "ms of processor time per photograph"),
        processor_ms_fast=told(work["fast", "ahead"], "ms of processor time per photograph"),
        processor_ms_apart=told(work["default", "apart"], "ms, the points of each photograph asked for alone"),
        processor_ms_fast_apart=told(work["fast", "apart"], "ms, the points of each photograph asked for alone"),
    )
    about = dict(name=args.data.name, fingerprint=fingerprint(args.data), n_images=len(photos), n_people=None)
    what = f"Photographs streamed through the pipeline on {args.threads} cores"
    realtime = hasattr(os, "SCHED_RR") and os.sched_getscheduler(0) == os.SCHED_RR
    command = "chrt -r 5 " * realtime + "python benchmarks/batches.py"
    write_record(args.out, record(what, command, about, metrics))
    for k, m in metrics.items():
        print(f"{k:36s} {show_metric(m)}  {m['unit']}")
