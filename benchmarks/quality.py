"""Which faces can be recognised, and what is refusing the others worth? Writes results/pipeline/quality.json.

    python benchmarks/quality.py [--fit] [--embedder NAME] [--data ../shared/data] [--keep FOLDER] [--people N]

With --fit the weights of facerec_nb/weights/quality.json are fitted first (a name of its own for the embedder, and
`plain` without the embedding's part), on the 48 calibration people: eight photographs of each are the references, the
next eight are asked about, as they are and made worse at random. Measured on the 12 people kept aside (wild_unseen)
and on celeba-photos-40, in which nothing was chosen. About four minutes on one thread; with --keep the faces that were
found are kept there, and a second run takes seconds.

`fnmr_drop20_SET_PART` is the FNMR at FMR 0.01 when the fifth of the faces with the lowest value of an ingredient (or
of the quality) is discarded, `edc_...` the area below the FNMR from nothing to 30 % discarded, over the area without
discarding: one for an ingredient that says nothing. `poor_reference_named_KIND` is the share of strangers' faces, made
worse in that way, that get the name of one reference made worse in the same way, in a gallery of this one person.
"""
import argparse
import sys
import warnings
from pathlib import Path

import cv2
import numpy as np
from scipy.optimize import minimize

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from benchmarks.degraded import jpeg, smaller
from facerec_nb.core.files import fingerprint, read_image, read_json, write_json
from facerec_nb.core.gallery_probability import fit_genuine
from facerec_nb.core.gallery_threshold import gallery_threshold, mean_reference
from facerec_nb.core.records import metric, record, show_metric, write_record
from facerec_nb.datasets.photos import people_below
from facerec_nb.engines.dlib_onnx import DEFAULT
from facerec_nb.evaluation.folders import exam
from facerec_nb.faces.detection import iou
from facerec_nb.faces.quality import PARTS, agreement_value, ingredients, quality_of
from facerec_nb.pipeline.face_pipeline import FacePipeline
from studies.recognition_faces import sources

WEIGHTS = Path("facerec_nb/weights/quality.json")
NAMES, WIDE, LOST = list(PARTS), 0.3, 0.02  # ingredients; most that is discarded; right answers that `least` may cost


def noisy(img, gain, sd):
    "Little light and much noise"
    noise = np.random.default_rng(img.size).normal(0, sd, img.shape)
    return np.clip(img*gain + noise, 0, 255).astype(np.uint8)


def lit(gain): return lambda img, high: np.clip(img*gain, 0, 255).astype(np.uint8)
def shrunk(to): return lambda img, high: smaller(img, high, to)
def blurred(share): return lambda img, high: cv2.GaussianBlur(img, (0, 0), max(share*high, 0.1))


KINDS = dict(  # what is measured
    dim=lit(0.12), night=lambda img, high: noisy(img, 0.07, 2.5), bright=lit(2.6), blur=blurred(0.04), small=shrunk(16),
    jpeg=lambda img, high: jpeg(img, 5))
MORE = dict(  # what is seen in the fit, too
    dark=lit(0.03), dusk=lit(0.3), glaring=lit(4.), light=lit(1.7), soft=blurred(0.02), fog=blurred(0.08),
    tiny=shrunk(11), few=shrunk(24), black=lambda img, high: noisy(img, 0.04, 3),
    grainy=lambda img, high: noisy(img, 1, 30))


# Faces

def face_row(pipe, img, box=None):
    "Ingredients and embedding of the largest face, or of the one in a box; None without"
    faces = pipe.find(img)
    if not faces: return None
    if box is not None:
        share = iou(np.array(box, float)[None], np.stack([f.box for f in faces]))[0]
        if share.max() < 0.3: return None
        return faces[int(share.argmax())]
    return faces[0]


def look(pipe, person, photos, kinds, box=None):
    "Rows of one person: photographs as they are, the later ones made worse in each of the ways"
    for j, (path, worse) in enumerate(zip(photos, kinds)):
        img = read_image(path)
        clean = face_row(pipe, img, None if box is None else box[j])
        high = img.shape[0]/2 if clean is None else clean.box[3] - clean.box[1]
        for kind in ("as_it_is", *worse):
            x = img if kind == "as_it_is" else (KINDS | MORE)[kind](img, high)
            scaled = None if box is None else np.asarray(box[j])*x.shape[0]/img.shape[0]
            f = clean if kind == "as_it_is" else face_row(pipe, x, scaled)
            yield person, j, kind, f


def table_of(rows):
    "Rows as arrays; a face that was not found has no value and a black chip"
    size = next(len(f.aligned) for *_, f in rows if f is not None)
    def values(f): return [np.nan]*len(NAMES) if f is None else [ingredients(f).get(k, np.nan) for k in NAMES]
    return dict(person=np.array([str(p) for p, *_ in rows]), photo=np.array([j for _, j, *_ in rows]),
                kind=np.array([k for _, _, k, _ in rows]), values=np.array([values(f) for *_, f in rows]),
                aligned=np.array([np.zeros((size, size, 3), np.uint8) if f is None else f.aligned for *_, f in rows]))


def embedded(pipe, t):
    "The same with embeddings, and what they say about each face; NaN without a face"
    found, emb, agree = ~np.isnan(t["values"][:, 0]), [], []
    for part in np.array_split(t["aligned"], max(1, len(t["aligned"])//64)):
        e, a = pipe._embeddings(part)
        emb.append(e)
        agree += a
    emb = np.where(found[:, None], np.concatenate(emb), np.nan)
    t["values"][:, NAMES.index("agreement")] = np.where(found, agreement_value(np.array(agree)), np.nan)
    return t | dict(emb=emb.astype(np.float32))


def plans(n_refs, n_asked, rng=None):
    "The ways in which each photograph of a person is made worse: none for references, all or four of them for others"
    def some(): return list(KINDS) if rng is None else list(rng.permutation(list(KINDS | MORE))[:4])
    return [[]]*n_refs + [some() for _ in range(n_asked)]


def calibration_table(pipe, data, people):
    "Faces that the weights are fitted on"
    rows, rng, out = sources(data), np.random.default_rng(0), []
    for who, g in list(rows[rows.role == "calibration"].groupby("identity"))[:people]:
        g = g.head(16)
        out += look(pipe, who, g.path, plans(8, 8, rng), g[["x1", "y1", "x2", "y2"]].to_numpy(float))
    return table_of(out)


def test_table(pipe, data, people):
    "Faces of people that nothing was chosen on"
    rows, out = sources(data), []
    for who, g in list(rows[rows.role == "wild_unseen"].groupby("identity"))[:people]:
        g = g.head(16)
        out += look(pipe, who, g.path, plans(6, 10), g[["x1", "y1", "x2", "y2"]].to_numpy(float))
    for who, photos in list(people_below(data/"celeba-photos-40").items())[:people]:
        out += look(pipe, who, photos[:10], plans(5, 5))
    return table_of(out)


def kept(folder, name, make):
    "A table out of a folder, or made and put there"
    path = folder and Path(folder)/f"{name}.npz"
    if path and path.exists(): return dict(np.load(path))
    t = make()
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        np.savez(path, **t)
    return t


# References and scores

def reference(t): return (t["kind"] == "as_it_is") & (t["photo"] < (t["photo"][t["kind"] != "as_it_is"].min()))


def against_means(t):
    "Of each face that is asked about: cosine with its own person's mean reference, and with the nearest other person's"
    ref, asked = reference(t) & ~np.isnan(t["emb"][:, 0]), ~reference(t)
    people = np.unique(t["person"])
    means = np.stack([mean_reference(t["emb"][ref & (t["person"] == p)]) for p in people])
    s, own = np.nan_to_num(t["emb"][asked], nan=-1) @ means.T, people.searchsorted(t["person"][asked])
    mine = s[np.arange(len(s)), own].copy()
    s[np.arange(len(s)), own] = -2
    return asked, mine, s.max(1)


def pairs(t):
    "Cosines of each asked face with single references: of its own person (a list each), and of all others"
    ref, asked = np.flatnonzero(reference(t) & ~np.isnan(t["emb"][:, 0])), np.flatnonzero(~reference(t))
    s = np.nan_to_num(t["emb"][asked], nan=-1) @ t["emb"][ref].T
    same = t["person"][asked][:, None] == t["person"][ref]
    return asked, s, same


# The fit

def fit(t, parts, tail):
    "Weights of a quality: never negative, by maximum likelihood with a small penalty"
    asked, mine, other = against_means(t)
    cut = gallery_threshold(tail, 40, 320)["threshold"]
    there = ~np.isnan(t["emb"][asked][:, 0])
    y, v, kind = ((mine >= cut) & (mine > other))[there], t["values"][asked][there], t["kind"][asked][there]
    at = [NAMES.index(p) for p in parts]
    low, good = np.nanquantile(v[:, at], 0.02, axis=0), np.nanquantile(v[kind == "as_it_is"][:, at], 0.5, axis=0)
    low = np.minimum(low, good - 1e-3)
    lack = 1 - np.clip((v[:, at] - low)/(good - low), 0, 1)
    def loss(w):
        z = w[0] - lack @ w[1:]
        return np.logaddexp(0, np.where(y, -z, z)).mean() + 1e-4*(w[1:]**2).sum()
    w = minimize(loss, np.full(len(at) + 1, 1.), bounds=[(None, 6)] + [(0, None)]*len(at)).x
    found = {p: [round(float(a), 4) for a in (b, g, x*(x > 1e-3))] for p, b, g, x in zip(parts, low, good, w[1:])}
    model = dict(bias=round(float(w[0]), 4), parts=found)
    return model | dict(least=least_of(t, model, tail))


def least_of(t, model, tail):
    "The largest quality to ask for: the interval of what good photographs lose has to end below LOST"
    q = qualities(t, model)
    def enough(least): return good_lost(t, tail, q, least, 15, 200)["high"] <= LOST
    return next(float(least) for least in np.arange(0.8, -0.01, -0.05).round(2) if enough(least))


def qualities(t, model):
    "Quality of every face; 0 where none was found"
    def one(v): return 0. if np.isnan(v[0]) else quality_of(dict(zip(NAMES, v)), model).value
    return np.array([one(v) for v in t["values"]])


def genuine_of(t, draws=10):
    "The cosines of faces with their own people, photographs as they are: the mean over which photographs are drawn"
    rows = (t["kind"] == "as_it_is") & ~np.isnan(t["emb"][:, 0])
    found = [fit_genuine(t["emb"][rows], t["person"][rows], 5, seed) for seed in range(draws)]
    return dict(refs=4, **{k: np.mean([f[k] for f in found], 0).round(4).tolist() for k in ("one", "many")})


# Error versus discard

def discard(bad, worst_first, weight, share):
    "FNMR of what is left when a share of the weight is discarded, worst first"
    b, w = bad[worst_first], weight[worst_first]
    gone = np.cumsum(w)
    keep = gone > share*gone[-1]
    return (b*w)[keep].sum()/max(w[keep].sum(), 1e-9)


def curves_of(bad, value, weight, grid):
    order = np.argsort(value, kind="stable")
    return np.array([discard(bad, order, weight, g) for g in grid])


def sure(value, low, high, n, unit):
    "A metric whose interval holds its value; null where nothing was missed, so that there is no ratio"
    if not np.isfinite([value, low, high]).all(): return metric(None, n=n, unit=unit)
    return metric(float(value), float(min(low, value)), float(max(high, value)), n=n, unit=unit)


def error_versus_discard(t, quality, n_boot, seed=0):
    "Metrics and curves of all sets and ingredients"
    asked, s, same = pairs(t)
    kind, person, values = t["kind"][asked], t["person"][asked], np.nan_to_num(t["values"][asked], nan=-99)
    grid, rng, front = np.linspace(0, WIDE, 13), np.random.default_rng(seed), values[:, NAMES.index("front")]
    plain = kind == "as_it_is"
    sets = dict(as_it_is=plain, turned=plain & (front <= np.quantile(front[plain], 0.25)),
                **{k: kind == k for k in KINDS}, all=np.ones(len(kind), bool))
    people, at = np.unique(person, return_inverse=True)
    draws = rng.multinomial(len(people), np.full(len(people), 1/len(people)), n_boot)
    out, curves = {}, dict(discarded=grid.round(4).tolist())
    for name, rows in sets.items():
        cut = np.quantile(s[rows][~same[rows]], 0.99)
        miss = np.where(same, s < cut, False)
        bad = (miss.sum(1)/same.sum(1))[rows]
        for part in ("quality", *NAMES, "best_possible"):
            if part == "best_possible": v = -bad
            else: v = (quality[asked] if part == "quality" else values[:, NAMES.index(part)])[rows]
            def both(w):
                c = curves_of(bad, v, w, grid)
                return c, c[0], c[8], (np.trapezoid(c, grid)/(c[0]*WIDE) if c[0] > 0 else np.nan)
            c, f0, f20, area = both(np.ones(len(bad)))
            boot = np.array([both(d[at[rows]] + 1e-9)[1:] for d in draws])
            low, high = np.nanquantile(boot, [0.025, 0.975], axis=0)
            n = int(rows.sum())
            if part == "quality":
                out[f"fnmr_{name}"] = sure(f0, low[0], high[0], n, "FNMR at FMR 0.01, nothing discarded")
            out[f"fnmr_drop20_{name}_{part}"] = sure(f20, low[1], high[1], n, "FNMR at FMR 0.01, a fifth discarded")
            out[f"edc_{name}_{part}"] = sure(area, low[2], high[2], n, "area below the curve over that without")
            curves[f"{name}_{part}"] = c.round(5).tolist()
    return out, curves


# What it is worth

def named_by_one(t, tail, quality, least, n_boot=500, seed=0):
    "Strangers who get the name of one poor reference, with and without the refusal"
    cut, out = gallery_threshold(tail, 1, 1)["threshold"], {}
    for kind in ("as_it_is", *KINDS):
        rows = np.flatnonzero((t["kind"] == kind) & ~reference(t) & ~np.isnan(t["emb"][:, 0]))
        person, q = t["person"][rows], quality[rows]
        s = t["emb"][rows] @ t["emb"][rows].T
        strange = person[:, None] != person
        for said, ok in (("", (q[:, None] >= least) & (q >= least)), ("_unjudged", np.ones_like(strange))):
            hit = np.where(strange, (s >= cut) & ok, 0)
            each, many, = hit.sum(1), strange.sum(1)
            people, at = np.unique(person, return_inverse=True)
            w = np.random.default_rng(seed).multinomial(len(people), np.full(len(people), 1/len(people)), n_boot)[:, at]
            value, spread = each.sum()/many.sum(), (w @ each)/(w @ many)
            out[f"poor_reference_named{said}_{kind}"] = sure(value, *np.quantile(spread, [0.025, 0.975]), len(rows),
                                                              "share of strangers' faces named")
        out[f"poor_share_{kind}"] = metric(float((q < least).mean()), n=len(q), unit="share of faces called poor")
    kinds = [out[f"poor_reference_named_{k}"] for k in KINDS]
    return out | dict(poor_reference_named=max(kinds, key=lambda m: m["value"]),
                      poor_reference_named_unjudged=max((out[f"poor_reference_named_unjudged_{k}"] for k in KINDS),
                                                        key=lambda m: m["value"]))


def good_lost(t, tail, quality, least, draws=40, n_boot=500):
    "Share of the right answers on photographs as they are that go when poor references and poor faces are refused"
    plain = t["kind"] == "as_it_is"
    emb, person, q = t["emb"][plain], t["person"][plain], quality[plain]
    strict, people = np.where((q < least)[:, None], np.nan, emb), np.unique(person)
    right = {k: np.zeros(len(person)) for k in ("before", "after")}
    for seed in range(draws):
        for name, e in (("before", emb), ("after", strict)):
            rng = np.random.default_rng(seed)
            found = exam(e, person, rng.permutation(people)[:len(people)//2], 3, rng)
            cut = gallery_threshold(tail, int(found.people[0]), int(found.refs[0]))["threshold"]
            ok = found.enrolled & (found.similarity >= cut) & (found.nearest == found.person)
            np.add.at(right[name], found.row.to_numpy(), ok.to_numpy())
    at = np.unique(person, return_inverse=True)[1]
    w = np.random.default_rng(0).multinomial(len(people), np.full(len(people), 1/len(people)), n_boot)[:, at]
    value, spread = 1 - right["after"].sum()/right["before"].sum(), 1 - (w @ right["after"])/(w @ right["before"])
    return sure(value, *np.quantile(spread, [0.025, 0.975]), int(right["before"].sum()), "share of right answers lost")


def arguments():
    "What can be asked"
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    say = parser.add_argument
    say("--data", default="../shared/data", type=Path)
    say("--embedder", help="see FacePipeline.load")
    say("--keep", help="folder for the faces that were found")
    say("--fit", action="store_true", help="fit the weights first")
    say("--people", type=int, help="only so many of each set, to try it out")
    say("--boot", type=int, default=300, help="bootstrap draws over people")
    say("--out", default="results/pipeline/quality.json")
    return parser.parse_args()


if __name__ == "__main__":
    args = arguments()
    warnings.filterwarnings("ignore", "red and blue look exchanged")
    pipe, name = FacePipeline.load(embedder=args.embedder, threads=1), args.embedder or DEFAULT
    pipe.quality = dict(bias=0., least=0., parts=dict(agreement=[0., 1., 0.]))  # asks for the mirrored face
    if args.fit:
        t = embedded(pipe, kept(args.keep, "calibration", lambda: calibration_table(pipe, args.data, args.people)))
        plain = fit(t, [p for p in NAMES if p != "agreement"], pipe.tail)
        known = read_json(WEIGHTS) if WEIGHTS.exists() else {}
        own = fit(t, NAMES, pipe.tail) | dict(genuine=genuine_of(t))
        write_json(WEIGHTS, known | ({"plain": plain} if name == DEFAULT else {}) | {name: own})
    model = read_json(WEIGHTS)[name]
    t = embedded(pipe, kept(args.keep, "test", lambda: test_table(pipe, args.data, args.people)))
    q = qualities(t, model)
    out, curves = error_versus_discard(t, q, args.boot)
    out |= named_by_one(t, pipe.tail, q, model["least"])
    out["good_answers_lost"] = good_lost(t, pipe.tail, q, model["least"])
    data = dict(name="celeba-photos-40, celeba-wild-60x30 (12 people kept aside)",
                n_images=len({*zip(t["person"], t["photo"])}), n_people=len(np.unique(t["person"])),
                fingerprint=fingerprint(args.data/"celeba-photos-40"))
    command = "python benchmarks/quality.py" + " --fit"*args.fit + (f" --embedder {name}" if args.embedder else "")
    curves |= dict(model=pipe.model, weights=model, kinds=list(KINDS))
    write_record(args.out, record("Which faces can be recognised, and what refusing the others is worth", command, data,
                                  out, curves, [0]))
    for k, m in out.items():
        if not k.startswith(("edc", "fnmr_drop")) or "_all_" in k: print(f"{k:44s} {show_metric(m, 4)}")
