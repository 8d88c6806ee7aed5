"""Is a name right as often as its probability says, in galleries of any size? Writes results/pipeline/probability.json.

    python benchmarks/probability.py [--embedder NAME] [--data ../shared/data] [--runs runs]

The probability was fitted on the calibration people (the law of the impostors by ship_faces.py, the cosines of faces
with their own people by quality.py). `openset_probability_ece`: the photographs of celeba-photos-40 through the whole
pipeline, three references each of 20 people, questions about them and about 20 strangers, 50 exams, at even odds that
the person is enrolled; poor faces give no probability and are left out. `..._pairs` is the same for the probability of
a pair of faces, which is what an answer carried before. `ece_M_K`: galleries of M aligned people in no fit, K
references. Intervals by bootstrap over people; of the galleries, over draws of the people in them.
"""
import argparse
import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from facerec_nb.core.files import fingerprint
from facerec_nb.core.gallery_probability import answered_probability, person_probability
from facerec_nb.core.gallery_threshold import gallery_threshold, mean_reference
from facerec_nb.core.records import metric, record, show_metric, write_record
from facerec_nb.datasets.photos import people_below
from facerec_nb.engines.dlib_onnx import DEFAULT
from facerec_nb.evaluation.folders import exam
from facerec_nb.pipeline.face_pipeline import FacePipeline
from studies.galleries import TUNED, aligned_embeddings, check_people

SIZES, REFS, BINS = (10, 40, 182, 1000), (1, 3, 5), 10


def binned(p, right, weight, bins=BINS):
    "Mean probability, share that is right, and weight of each bin"
    at = np.minimum((p*bins).astype(int), bins - 1)
    w = np.bincount(at, weight, bins)
    full = w > 0
    return tuple(np.bincount(at, weight*v, bins)[full]/w[full] for v in (p, right)) + (w[full]/w.sum(),)


def ece(p, right, weight):
    "Expected calibration error"
    said, true, w = binned(p, right, weight)
    return float(w @ np.abs(said - true))


def even(enrolled):
    "Weights that make questions about enrolled people and about strangers equally frequent"
    return np.where(enrolled, 0.5/max(enrolled.sum(), 1), 0.5/max((~enrolled).sum(), 1))


def photographs(pipe, folder):
    "Embeddings of the faces that are good enough (NaN for the others), and whose they are"
    people, emb, least = people_below(folder), [], pipe.least_quality()
    for faces in pipe.stream([p for v in people.values() for p in v]):
        good = faces and faces[0].quality >= least
        emb.append(faces[0].embedding if good else np.full(128, np.nan, np.float32))
    return np.stack(emb), np.repeat(list(people), [len(v) for v in people.values()])


def asked(pipe, emb, person, draws=50, k=3):
    "Questions of many exams: probability of the answer, of the pair, right or not, enrolled or not, who, known or not"
    out, people = [], np.unique(person)
    for seed in range(draws):
        rng = np.random.default_rng(seed)
        e = exam(emb, person, rng.permutation(people)[:len(people)//2], k, rng)
        e = e[np.isfinite(e.similarity)]
        size = int(e.people.iloc[0]), int(e.refs.iloc[0])
        known = (e.similarity >= gallery_threshold(pipe.tail, *size)["threshold"]).to_numpy()
        p = person_probability(e.similarity.to_numpy(), size, pipe.tail, pipe.quality["genuine"])
        p = np.array([answered_probability(*a) for a in zip(p, known)])
        pair = np.array([pipe.probability_of(s) for s in e.similarity])
        out.append((p, pair, (e.nearest == e.person).to_numpy() & e.enrolled.to_numpy(), e.enrolled.to_numpy(),
                    e.person.to_numpy(), known))
    return [np.concatenate(v) for v in zip(*out)]


def interval(f, who, n_boot, unit, seed=0):
    "A number of weighted questions with its interval over people"
    at, n = np.unique(who, return_inverse=True)[1], len(np.unique(who))
    draws = np.random.default_rng(seed).multinomial(n, np.full(n, 1/n), n_boot)
    value, (low, high) = f(np.ones(len(who))), np.quantile([f(d[at].astype(float)) for d in draws], [0.025, 0.975])
    return metric(value, min(float(low), value), max(float(high), value), len(who), unit)


def on_photographs(pipe, data, n_boot):
    "Metrics and the curves of reliability on celeba-photos-40"
    p, pair, right, enrolled, who, known = asked(pipe, *photographs(pipe, data/"celeba-photos-40"))
    w, said = even(enrolled), "expected calibration error, even odds, 20 enrolled with 3 references, 20 strangers"
    out = dict(openset_probability_ece=interval(lambda d: ece(p, right, w*d), who, n_boot, said),
               openset_probability_ece_pairs=interval(lambda d: ece(pair, right, w*d), who, n_boot, said))
    strange = ~enrolled
    for name, v in (("", p), ("_pairs", pair)):
        out[f"stranger_median{name}"] = metric(float(np.median(v[strange])), n=int(strange.sum()), unit="probability")
        out[f"stranger_above_half{name}"] = metric(float((v[strange] > 0.5).mean()), n=int(strange.sum()), unit="share")
        out[f"unknown_highest{name}"] = metric(float(v[~known].max()), n=int((~known).sum()), unit="probability")
    curves = {name: [x.round(4).tolist() for x in binned(v, right, w)] for name, v in (("name", p), ("pair", pair))}
    return out, curves


def in_galleries(pipe, people, strangers, size, k, draws=20, seed=0):
    "ECE in galleries of aligned people, with the spread over galleries"
    rng, found = np.random.default_rng(seed), []
    for _ in range(draws):
        order = rng.permutation(len(people))
        x = people[order[:size]]
        other = people[order[size:]] if strangers is people else strangers
        other = other.reshape(-1, people.shape[-1])
        other = other[rng.permutation(len(other))[:2000]]
        probes, own = x[:, k:].reshape(-1, x.shape[-1]), np.arange(size).repeat(x.shape[1] - k)
        if not len(probes): return None
        some = rng.permutation(len(probes))[:2000]
        s, own = probes[some] @ mean_reference(x[:, :k]).T, own[some]
        t = (other @ mean_reference(x[:, :k]).T).max(1)
        p = person_probability(np.r_[s.max(1), t], (size, size*k), pipe.tail, pipe.quality["genuine"])
        enrolled = np.arange(len(p)) < len(s)
        found.append(ece(p, np.r_[s.argmax(1) == own, np.zeros(len(t), bool)], even(enrolled)))
    low, high = np.quantile(found, [0.025, 0.975])
    return metric(float(np.mean(found)), float(min(low, np.mean(found))), float(max(high, np.mean(found))), draws,
                  "expected calibration error, galleries drawn")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="../shared/data", type=Path)
    parser.add_argument("--embedder", help="see FacePipeline.load")
    parser.add_argument("--runs", default="runs", type=Path, help="aligned faces and embeddings are kept here")
    parser.add_argument("--boot", type=int, default=200, help="bootstrap draws over people")
    parser.add_argument("--out", default="results/pipeline/probability.json")
    args = parser.parse_args()
    pipe, name = FacePipeline.load(embedder=args.embedder, threads=1), args.embedder or DEFAULT
    out, curves = on_photographs(pipe, args.data, args.boot)
    people, strangers = check_people(*aligned_embeddings(pipe.embedder, args.data, args.runs), name in TUNED)
    if name in TUNED: people = strangers = people[:len(strangers)]  # nobody whom the recogniser was tuned on
    for size in SIZES:
        for k in REFS:
            m = in_galleries(pipe, people, strangers, size, k)
            if m: out[f"ece_{size}_{k}"] = m
    data = dict(name="celeba-photos-40, celeba-aligned-more-3000x5", n_images=400 + people.shape[0]*people.shape[1],
                n_people=40 + len(people), fingerprint=fingerprint(args.data/"celeba-photos-40"))
    command = "python benchmarks/probability.py" + (f" --embedder {name}" if args.embedder else "")
    curves |= dict(sizes=SIZES, refs=REFS, model=pipe.model, genuine=pipe.quality["genuine"])
    write_record(args.out, record("Is a name right as often as its probability says?", command, data, out, curves, [0]))
    for k, m in out.items(): print(f"{k:32s} {show_metric(m, 4)}  {m['unit']}")
