"""How many strangers are named at the threshold for a gallery's size: wanted against achieved. Writes fpir.json.

    python benchmarks/fpir.py [--embedder NAME_OR_FILE] [--data ../shared/data] [--runs runs]

The law (the embedder's `tail`) was fitted by ship_faces.py; galleries and strangers here are people in no fit and in no
training of ours, five photographs each. For `free`: 3,000 to draw galleries from and 1,000 strangers. For `celeba`,
which was trained on 2,700 people: 1,300, each of whom is a stranger to galleries of the other 1,299; only the galleries
of 3,000 hold trained people as well. The share of strangers named is the exact mean over all galleries of that size.
The photographs of
celeba-photos-40 through the whole pipeline, and LFW's people, whom the start has not seen, are strangers too. The rules
for several references are compared on the calibration people, and how much of the scores is the tail (`SHARE`) on
those of the fit, cut into halves: the law of one half is asked about the other. Intervals by bootstrap over the
strangers.
"""
import argparse
import sys
from pathlib import Path

import numpy as np
from scipy.special import gammaln

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from facerec_nb.core.files import fingerprint
from facerec_nb.core.metrics import threshold_at_far
from facerec_nb.core.records import metric, record, show_metric, write_record
from facerec_nb.evaluation.folders import embed_people
from facerec_nb.core.gallery_threshold import FPIR, SHARE, equal_people, fit_laws, gallery_threshold, mean_reference
from facerec_nb.pipeline.face_pipeline import FacePipeline
from facerec_nb.engines.dlib_onnx import DEFAULT
from studies.galleries import TUNED, aligned_embeddings, check_people, fit_people

SIZES, REFS = (10, 40, 182, 1000, 3000), (1, 3, 5)
SHARES, FEW, HALVINGS = (0.01, SHARE, 0.003, 0.001), (1, 3, 10, 40, 182, 900), 5  # of the tail, and where it is tried


def share(values, ids, n_boot, unit):
    "A mean with its interval over people"
    at = np.unique(ids, return_inverse=True)[1]
    total, count = np.bincount(at, values), np.bincount(at)
    w = np.random.default_rng(0).multinomial(len(count), np.full(len(count), 1/len(count)), n_boot)
    value, (low, high) = float(values.mean()), np.quantile((w @ total)/(w @ count), [0.025, 0.975])
    return metric(value, min(float(low), value), max(float(high), value), n=len(values), unit=unit)


def named(probes, people, k, threshold, size, own=None):
    "How likely each probe is named by a gallery of `size` of these people, k references each, without its `own` person"
    refs = mean_reference(people[:, :k])
    near = np.concatenate([((part @ refs.T) >= threshold).sum(1)
                           for part in np.array_split(probes, max(1, len(probes)//2000))])
    if own is not None: near = near - ((probes*refs[own]).sum(1) >= threshold)
    n = len(people) - (own is not None)
    left = n - near
    spared = gammaln(left + 1) - gammaln(np.maximum(left - size, 0) + 1) - gammaln(n + 1) + gammaln(n - size + 1)
    return np.where(left >= size, 1 - np.exp(spared), 1.)


def achieved(pipe, strangers, ids, people, n_boot, said, fresh, own=None):
    "Shares of these strangers that are named, at the threshold for the size and at the one for pairs"
    out, unit = {}, "share of strangers' faces named"
    for size in SIZES:
        of = people[:fresh] if size < fresh else people
        for k in REFS:
            t = gallery_threshold(pipe.tail, size, size*k, FPIR)["threshold"]
            at = [("", t), ("_pairs", pipe.threshold)]
            out |= {f"fpir{said}{which}_{size}_{k}": share(named(strangers, of, k, cut, size, own), ids, n_boot,
                                                           f"{unit}, at cosine {cut:.4f}") for which, cut in at}
    return out


def scores(probes, refs, impostors):
    "Probe against person by each rule; refs `(people, k, D)`"
    each, mean, spread = probes @ refs.reshape(-1, refs.shape[-1]).T, impostors.mean(0), np.cov(impostors.T)
    z = (each - (probes @ mean)[:, None])/np.sqrt(np.einsum("pi,ij,pj->p", probes, spread, probes))[:, None]
    by = lambda s, how: how(s.reshape(len(probes), *refs.shape[:2]), axis=2)
    return dict(nearest=by(each, np.max), average=by(each, np.mean), mean=probes @ mean_reference(refs).T,
                znorm=by(z, np.max))


def rules(emb, ids, k, draws, n_boot):
    "DIR at the wanted FPIR of each rule on the calibration people, half of them enrolled, with the gains over nearest"
    x, hits, who = equal_people(emb, ids), {}, []
    for seed in range(draws):
        order = np.random.default_rng(seed).permutation(len(x))
        mine, other = x[order[:len(x)//2]], x[order[len(x)//2:]].reshape(-1, x.shape[-1])
        probes, true = mine[:, k:].reshape(-1, x.shape[-1]), np.arange(len(mine)).repeat(x.shape[1] - k)
        known, strange = (scores(p, mine[:, :k], emb) for p in (probes, other))
        for r, s in known.items():
            cut = threshold_at_far(strange[r].max(1), FPIR)
            hits.setdefault(r, []).append((s.argmax(1) == true) & (s.max(1) > cut))
        who.append(order[true])
    who, hits = np.concatenate(who), {r: np.concatenate(h).astype(float) for r, h in hits.items()}
    said = f"DIR at FPIR 0.01, {len(x)} calibration people, half of them enrolled with {k}"
    out = {f"dir_{r}_{k}": share(h, who, n_boot, said) for r, h in hits.items()}
    gains = {r: h - hits["nearest"] for r, h in hits.items() if r != "nearest"}
    over = f"{said}: over the nearest reference"
    return out | {f"gain_{r}_{k}": share(g, who, n_boot, over) for r, g in gains.items()}


def off_by(fitted, asked, share):
    "Logarithm of achieved over wanted, of the law of some people asked about others: `(sizes, references)`"
    law, own = fit_laws(fitted, share)[0], np.arange(len(asked)).repeat(asked.shape[1])
    tail, probes = dict(refs=fitted.shape[1], share=share, law=law, draws=[law]), asked.reshape(-1, asked.shape[-1])

    def achieved_share(n, k):
        return named(probes, asked, k, gallery_threshold(tail, n, n*k, FPIR)["threshold"], n, own).mean()

    return np.log([[achieved_share(n, k)/FPIR for k in REFS] for n in FEW])


def tails(x):
    "How well tails of several sizes tell the share of strangers named, on halves of the people of the fit"
    found, out = {s: [] for s in SHARES}, {}
    people = f"{len(x)//2} people of the fit asked with the law of as many others"
    for seed in range(HALVINGS):
        a, b = np.array_split(np.random.default_rng(seed).permutation(len(x)), 2)
        for s, v in found.items(): v += [off_by(x[a], x[b], s), off_by(x[b], x[a], s)]
    for s, v in found.items():
        v = np.array(v)
        unit = f"mean |log(achieved/wanted)|, {people}"
        out[f"tail_off_{s:g}"] = metric(float(np.abs(v).mean()), n=len(v), unit=unit)
        for n, part in zip(FEW, v.transpose(1, 0, 2)):
            each = np.exp(part.mean(1))
            out[f"tail_ratio_{s:g}_{n}"] = metric(
                float(np.exp(part.mean())), float(each.min()), float(each.max()), n=len(v),
                unit=f"achieved/wanted, {people}: geometric mean, range over halves")
    return out


def worst(out):
    "The achieved share that is furthest from the wanted one, as a ratio above 1"
    ratio = lambda v: max(v/FPIR, FPIR/v)
    m = max((out[f"fpir_{n}_{k}"] for n in SIZES for k in REFS), key=lambda m: ratio(m["value"]))
    ends = sorted(ratio(m[e]) for e in ("low", "high"))
    value = ratio(m["value"])
    return metric(value, min(ends[0], value), max(ends[1], value), n=m["n"], unit="achieved / wanted, or inverse")


def arguments():
    "What can be asked"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    say = parser.add_argument
    say("--data", default="../shared/data", type=Path)
    say("--embedder", help="see FacePipeline.load")
    say("--runs", default="runs", type=Path, help="aligned faces and embeddings are kept here")
    say("--boot", type=int, default=1000, help="bootstrap draws over people")
    say("--out", default="results/pipeline/fpir.json")
    return parser.parse_args()


if __name__ == "__main__":
    args = arguments()
    pipe = FacePipeline.load(embedder=args.embedder, threads=1)
    table, emb = aligned_embeddings(pipe.embedder, args.data, args.runs)
    who, role = table.identity.to_numpy(), table.role
    trained = (args.embedder or DEFAULT) in TUNED
    people, strangers = check_people(table, emb, trained)
    probes, ids = strangers.reshape(-1, emb.shape[1]), np.arange(len(strangers)).repeat(strangers.shape[1])
    fresh = len(strangers) if trained else len(people)
    out = achieved(pipe, probes, ids, people, args.boot, "", fresh, ids if trained else None)
    lfw = (role == "lfw").to_numpy()
    out |= achieved(pipe, emb[lfw], who[lfw], people, args.boot, "_lfw", fresh)
    photos, seen = embed_people(pipe, args.data/"celeba-photos-40")
    face = ~np.isnan(seen[:, 0])
    out |= achieved(pipe, seen[face], photos.person.to_numpy()[face], people, args.boot, "_photos", fresh)
    unseen = (role == "unseen").to_numpy()
    for k in (3, 4): out |= rules(emb[unseen], who[unseen], k, 40, args.boot)
    out |= tails(equal_people(*fit_people(table, emb, trained)))
    out["fpir_ratio_worst"] = worst(out)
    curves = dict(people=SIZES, refs=REFS, strangers=len(strangers), tail=pipe.tail, pair_threshold=pipe.threshold,
                  model=pipe.model)
    data = dict(name="celeba-aligned-3000x5, celeba-aligned-more-3000x5, celeba-photos-40, lfw-view1-devtest",
                n_images=len(probes) + len(seen) + int(lfw.sum()),
                n_people=len(people) + len(strangers) + photos.person.nunique(),
                fingerprint=fingerprint(table.to_csv(index=False)))
    command = "python benchmarks/fpir.py" + (f" --embedder {args.embedder}" if args.embedder else "")
    what = "the share of strangers named at the threshold that follows the gallery's size, wanted 0.01"
    write_record(args.out, record(what, command, data, out, curves, [1]))
    for k, m in out.items(): print(f"{k:26s} {show_metric(m, 4)}  {m['unit']}")
