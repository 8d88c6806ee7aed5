"""Milliseconds from a photograph to a name, stage by stage: ours beside MTCNN + InceptionResnetV1 of facenet-pytorch,
on the same photographs in the same run. Writes results/pipeline/speed.json.

    pip install --no-deps --target /tmp/facenet facenet-pytorch requests urllib3 idna certifi charset-normalizer
    python benchmarks/pipeline_speed.py --facenet /tmp/facenet [--run RUN] [--embedder NAME_OR_FILE] [--photos 60]
        [--rounds 3] [--threads 1 2]

The facenet folder lies outside the repository; the package pins an old torch, hence --no-deps.

Each program is a process of its own with a stated number of threads; the programs take turns,
round by round, and the headline is the median over the rounds of the ratio of their median times a photograph. Peak
memory is that of the process. InceptionResnetV1 has random weights here (its trained ones are a download; the time is
the same), MTCNN has its own. Beside the time on the clock stands processor time. The programs: onnx and torch are
ours by engine, fast is the pipeline with fast=True on onnx, facenet is MTCNN with its defaults, facenet_40 with
min_face_size=40.
"""

import argparse, json, os, resource, subprocess, sys, time
from pathlib import Path

import numpy as np

STAGES, PROGRAMS, REFERENCES = (
    ("decode", "detect", "landmarks", "align", "embed", "search"),
    ("onnx", "torch", "fast", "facenet", "facenet_40"),
    1000,
)


class Watch:
    "Milliseconds of each stage of one photograph, on the clock and of the processor"

    def __init__(self):
        self.stages = {}

    def __call__(self, stage, f, *args):
        start = time.perf_counter(), time.process_time()
        out = f(*args)
        took = (time.perf_counter() - start[0]) * 1e3, (time.process_time() - start[1]) * 1e3
        self.stages[stage] = tuple(np.add(self.stages.get(stage, (0, 0)), took))
        return out


def gallery(dim, model):
    "A gallery in memory of random references"
    from facerec_nb.pipeline.gallery import Gallery

    g, e = Gallery(model=model), np.random.default_rng(0).standard_normal((REFERENCES, dim)).astype(np.float32)
    e /= np.linalg.norm(e, axis=1, keepdims=True)
    for i in range(0, REFERENCES, 5):
        g.add(f"p{i}", e[i : i + 5])
    g.search(e[:1])
    return g


def ours(args, engine, fast):
    "Photograph -> stages, with the pipeline's own parts called one by one"
    from facerec_nb.core.files import read_image
    from facerec_nb.core.geometry import align_face
    from facerec_nb.pipeline.face_pipeline import FacePipeline

    pipe = FacePipeline.load(
        args.run, landmarks=args.landmarks, embedder=args.embedder, threads=args.one[1], engine=engine, fast=fast
    )
    e = pipe.embedder
    g = gallery(e.emb_dim, pipe.model)

    def one(path, watch):
        img = watch("decode", read_image, path)
        boxes, _ = watch("detect", pipe.detector, img)
        if not len(boxes):
            return 0
        points, _ = watch("landmarks", pipe.landmarks.points, img, boxes)
        faces = watch("align", lambda: np.stack([align_face(img, p, e.size, e.template) for p in points]))
        emb = watch("embed", lambda: e.embed(faces, flip=pipe.mirror, check_colour=False))
        watch("search", g.search, emb)
        return len(boxes)

    return one


def theirs(args, smallest):
    "MTCNN cuts the faces, InceptionResnetV1 embeds them, all faces of a photograph"
    sys.path.insert(0, args.facenet)
    import torch
    from facenet_pytorch import MTCNN, InceptionResnetV1
    from PIL import Image

    find, net, g = (
        MTCNN(keep_all=True, min_face_size=smallest, device="cpu"),
        InceptionResnetV1(pretrained=None).eval(),
        gallery(512, "facenet"),
    )

    def decode(path):
        return Image.open(path).convert("RGB")

    @torch.no_grad()
    def embed(x):
        return torch.nn.functional.normalize(net(x)).numpy()

    def one(path, watch):
        img = watch("decode", decode, path)
        boxes, _ = watch("detect", find.detect, img)  # the points come with the boxes
        if boxes is None:
            return 0
        faces = watch("align", find.extract, img, boxes, None)
        watch("search", g.search, watch("embed", embed, faces))
        return len(boxes)

    return one


def child(args):
    "One program over the photographs; prints a line of JSON"
    name, threads = args.one
    import cv2, faiss, torch

    torch.set_num_threads(threads)
    cv2.setNumThreads(threads)
    faiss.omp_set_num_threads(threads)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    one = (
        theirs(args, 40 if name == "facenet_40" else 20)
        if name.startswith("facenet")
        else ours(args, "torch" if name == "torch" else "onnx", name == "fast")
    )
    paths = photographs(args)
    for p in paths[:5]:
        one(p, Watch())  # first calls prepare memory
    rows, faces = [], 0
    for p in paths:
        watch = Watch()
        faces += one(p, watch)
        rows.append({s: watch.stages.get(s, (0.0, 0.0)) for s in STAGES})
    unit = 1e6 if sys.platform != "darwin" else 1e9
    print(
        json.dumps(
            dict(
                stages={s: [r[s] for r in rows] for s in STAGES},
                faces=faces,
                imports_gb=before / unit,
                peak_gb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit,
            )
        )
    )


def photographs(args):
    "Evenly spread over the folder"
    from facerec_nb.datasets.photos import photos_below

    paths = photos_below(args.data)
    return [paths[i] for i in np.linspace(0, len(paths) - 1, min(args.photos, len(paths))).astype(int)]


def turn(args, name, threads):
    "One child: ms a photograph and stage `(photos, stages, 2)`, faces, memory"
    env = dict(os.environ, OMP_NUM_THREADS=str(threads), OPENBLAS_NUM_THREADS=str(threads), CUDA_VISIBLE_DEVICES="")
    done = subprocess.run(
        [sys.executable, __file__, *sys.argv[1:], "--one", name, str(threads)],
        env=env,
        stdout=subprocess.PIPE,
        text=True,
    )
    if done.returncode:
        raise SystemExit(f"{name} with {threads} threads failed, see above")
    out = json.loads(done.stdout.splitlines()[-1])
    return np.array([out["stages"][s] for s in STAGES]).transpose(1, 0, 2), out


def summary(times, infos, programs, threads):
    "All metrics of one number of threads; times: program -> list of arrays, one a round"
    from facerec_nb.core.records import metric

    out, total = {}, {p: np.array([t.sum(1) for t in times[p]]) for p in programs}  # (rounds, photos, 2)
    for p in programs:
        mid = np.median(total[p], 1)  # of each round
        for c, clock in enumerate(("", "_cpu")):
            out[f"{p}{clock}_ms_{threads}"] = metric(
                float(np.median(mid[:, c])),
                float(mid[:, c].min()),
                float(mid[:, c].max()),
                n=total[p][..., c].size,
                unit="ms a photograph, median; range over rounds",
            )
        out[f"{p}_mean_ms_{threads}"] = metric(
            float(total[p][..., 0].mean()), n=total[p][..., 0].size, unit="ms a photograph, mean"
        )
        for i, s in enumerate(STAGES):
            out[f"{p}_{s}_ms_{threads}"] = metric(
                float(np.median([np.median(t[:, i, 0]) for t in times[p]])),
                n=total[p][..., 0].size,
                unit="ms a photograph, median",
            )
        out[f"{p}_peak_gb_{threads}"] = metric(
            max(i["peak_gb"] for i in infos[p]), n=len(infos[p]), unit="GB of the process at most"
        )
        out[f"{p}_faces_{threads}"] = metric(
            infos[p][0]["faces"], n=total[p].shape[1], unit="faces found in the photographs"
        )
    for base in [p for p in programs if p.startswith("facenet")]:
        for p in [p for p in programs if not p.startswith("facenet")]:
            for c, clock in enumerate(("", "_cpu")):
                r = np.median(total[base][..., c], 1) / np.median(total[p][..., c], 1)
                out[f"ratio_{p}_{base}{clock}_{threads}"] = metric(
                    float(np.median(r)),
                    float(r.min()),
                    float(r.max()),
                    n=len(r),
                    unit=f"times as fast as {base} in the same round",
                )
    return out


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--facenet", help="folder with facenet_pytorch; without it only ours is timed")
    parser.add_argument("--run")
    parser.add_argument("--embedder")
    parser.add_argument("--landmarks")
    parser.add_argument("--data", default="../shared/data/celeba-photos-40")
    parser.add_argument("--photos", type=int, default=60)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--programs", nargs="+", choices=PROGRAMS, default=list(PROGRAMS))
    parser.add_argument("--out", default="results/pipeline/speed.json")
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.one:
        args.one = args.one[0], int(args.one[1])
        child(args)
        sys.exit()
    from facerec_nb.core.files import fingerprint
    from facerec_nb.core.records import record, write_record

    programs, metrics = [p for p in args.programs if args.facenet or not p.startswith("facenet")], {}
    for threads in args.threads:
        times, infos = {p: [] for p in programs}, {p: [] for p in programs}
        for r in range(args.rounds):
            for p in programs if r % 2 == 0 else programs[::-1]:
                t, info = turn(args, p, threads)
                times[p].append(t)
                infos[p].append(info)
                print(
                    f"{threads} threads, round {r}: {p:12s} {np.median(t[..., 0].sum(1)):8.1f} ms a photograph, "
                    f"{info['peak_gb']:.2f} GB",
                    flush=True,
                )
        metrics |= summary(times, infos, programs, threads)
    paths = photographs(args)
    data = dict(
        name=Path(args.data).name,
        fingerprint=fingerprint(Path(args.data)),
        n_images=len(paths),
        n_people=len({p.parent for p in paths}),
    )
    options = "".join(f" --{k} {v}" for k in ("run", "embedder", "landmarks") if (v := getattr(args, k)))
    rec = record(
        "from a photograph to a name, stage by stage, beside facenet-pytorch",
        f"python benchmarks/pipeline_speed.py --facenet FOLDER{options} --photos {args.photos} --rounds {args.rounds}",
        data,
        metrics,
        curves=dict(stages=list(STAGES), programs=programs, references=REFERENCES),
    )
    write_record(args.out, rec)
    for k, m in metrics.items():
        if k.startswith(("ratio", "ms_")) or k.endswith(tuple(f"_ms_{t}" for t in args.threads)):
            print(f"{k:36s} {m['value']:9.2f}  {m['unit']}")
