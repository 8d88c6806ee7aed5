"""What the recognition study measures of an embedding, trained or not, and how two of them are compared."""
import numpy as np
import pandas as pd
import torch

from facerec_nb.evaluation.calibration import calibrated_threshold, fit_probability, reliability, store_calibration
from facerec_nb.datasets.celeba_files import ATTRIBUTES
from facerec_nb.evaluation.identification import unseen_metrics
from facerec_nb.evaluation.verification import closed_set, people_weights, read_pairs
from facerec_nb.faces.embedder import FaceEmbedder, own_angles, short_name
from facerec_nb.core.files import InputError, atomic_path, fingerprint, read_json, write_json
from facerec_nb.core.metrics import auc, overlap, pair_scores, tenfold
from facerec_nb.core.records import metric
from facerec_nb.models.training import read_log
from studies.recognition_trainings import Trainings

FARS = (0.1, 0.01, 0.001, 0.0001)


def interval(draws, value):
    "Value, low, high of a `metric`: the 95 % interval of the draws, widened to hold the value"
    low, high = np.nanquantile(draws, [0.025, 0.975])
    return float(value), float(min(low, value)), float(max(high, value))


def share_above(scores, threshold):
    "The share of scores from a threshold on, as a `metric`"
    return metric(float((scores >= threshold).mean()), n=len(scores), unit="share")


def auc_of(pairs, unit="AUC"):
    "AUC of (genuine, impostor), as a `metric`"
    return metric(auc(*pairs), n=sum(map(len, pairs)), unit=unit)


def share_of(right, ids, n_boot):
    "What `closed_set` returns, where there is something to be right about"
    known = ~np.isnan(right)
    return closed_set(right[known], ids[known], n_boot)


# Where it fails: errors within and across an attribute

def drawn_shares(hit, total, W, pairs=False):
    "The share of `hit` in `total`, first as it is, then for each row of `W`; people x people matrices when pairs"
    W = np.r_[np.ones((1, len(total))), W]
    top, whole = (((W @ m)*W).sum(1) if pairs else W @ m for m in (hit, total))
    return np.divide(top, whole, out=np.full(len(W), np.nan), where=whole > 0)


def told(drawn):
    "Value, low, high of shares or their ratios, the value first; `None` where there is none"
    return interval(drawn[1:], drawn[0]) if np.isfinite(drawn[0]) else (None, None, None)


def errors_among(kind, same, accepted, person_a, person_b, W):
    "False non-match and false match rate of the pairs of one kind, each as `drawn_shares` returns it; counts"
    n = W.shape[1]
    g, i = same & kind, ~same & kind
    a, b = person_a, person_b
    wrong, genuine = (np.bincount(a[g], w, n) for w in (~accepted[g], None))
    cell = a[i]*n + b[i]
    taken, impostor = (np.bincount(cell, w, n*n).reshape(n, n) for w in (accepted[i], None))
    return dict(fnmr=drawn_shares(wrong, genuine, W), fmr=drawn_shares(taken, impostor, W, True),
                n_genuine=int(g.sum()), n_impostor=int(i.sum()), n_people=len(set(a[g | i]) | set(b[g | i])))


def times(above, below):
    "How many times as often, with its interval; draws without a single error below it are left out"
    ratio = np.divide(above, below, out=np.full(len(above), np.nan), where=below > 0)
    return told(ratio)


def attribute_errors(
    emb:np.ndarray, # `(N, D)` L2-normalised
    ids:np.ndarray, # `(N,)` who they are
    has:np.ndarray, # `(N,)` bool: has the face the attribute
    threshold:float, # cosine from which two faces are taken for one person
    n_boot:int=1000, # bootstrap draws over people
    seed:int=0, # of the draws
) -> dict: # with, without, across -> fnmr, fmr (value, low, high), n_genuine, n_impostor, n_people; times -> fnmr, fmr
    "Error rates within and across an attribute, and with over without, 95 % over people; `None` where there are none"
    people, person = np.unique(ids, return_inverse=True)
    W = people_weights(len(people), n_boot, seed)
    a, b = np.triu_indices(len(ids), 1)
    accepted, both = (emb @ emb.T)[a, b] >= threshold, has[a].astype(int) + has[b]
    a, b = person[a], person[b]
    found = {name: errors_among(both == k, a == b, accepted, a, b, W)
             for k, name in ((2, "with"), (0, "without"), (1, "across"))}
    ratio = {k: times(found["with"][k], found["without"][k]) for k in ("fnmr", "fmr")}
    return {n: f | {k: told(f[k]) for k in ("fnmr", "fmr")} for n, f in found.items()} | dict(times=ratio)


# People held out

def triplet_share(
    emb:np.ndarray, # `(N, D)` L2-normalised
    ids:np.ndarray, # `(N,)` who they are
) -> np.ndarray: # `(N,)` of each photograph; NaN for the only one of its person
    "The share of all triplets in which the other photograph of the same person is nearer than somebody else's"
    sim, same = emb @ emb.T, ids[:, None] == ids
    def of(i):
        other, own = np.sort(sim[i, ~same[i]]), sim[i, same[i] & (np.arange(len(ids)) != i)]
        return np.searchsorted(other, own).mean()/len(other) if len(own) else np.nan
    return np.array([of(i) for i in range(len(ids))])


def unseen_numbers(emb, ids, fars, n_boot):
    "Everything about people held out: name -> metric, draws, curves, pair scores"
    genuine, impostor = pair_scores(emb, ids)
    fars = tuple(f for f in fars if f*len(impostor) >= 1)
    found, draws, curves = unseen_metrics(emb, ids, fars, n_boot)
    def plain(v): return None if not np.isfinite(v) else float(v)
    def as_metric(r):
        return metric(plain(r.value), plain(min(r.low, r.value)), plain(max(r.high, r.value)), int(r.n), "share")
    out = {f"{k}_unseen": as_metric(r) for k, r in found.iterrows()}
    out["triplet_share_unseen"], draws["triplet_share"] = share_of(triplet_share(emb, ids), ids, n_boot)
    out["overlap_unseen"] = metric(overlap(genuine, impostor), n=len(genuine) + len(impostor), unit="shared area")
    for kind, scores in dict(impostor=impostor, genuine=genuine).items():
        out[f"median_{kind}_unseen"] = metric(float(np.median(scores)), n=len(scores), unit="cosine")
    return out, draws.add_suffix("_unseen"), curves, (genuine, impostor)


def norms_by_sharpness(norm, sharp):
    "Median sharpness and mean feature norm of each tenth of the faces"
    tenth = np.argsort(np.argsort(sharp, kind="stable"))*10//len(sharp)
    return [dict(sharpness=float(np.median(sharp[tenth == k])), norm=float(norm[tenth == k].mean()))
            for k in np.unique(tenth)]


def in_the_plane(emb, ids, n_people):
    "t-SNE of the first people"
    from sklearn.manifold import TSNE
    keep = np.isin(ids, np.unique(ids)[:n_people])
    tsne = TSNE(init="pca", perplexity=min(30, (keep.sum() - 1)/3), metric="cosine", random_state=0)
    xy = tsne.fit_transform(emb[keep])
    return dict(x=xy[:, 0].round(2).tolist(), y=xy[:, 1].round(2).tolist(), person=ids[keep].tolist())


class Measures(Trainings):
    "Trainings, and what is measured of them"
    def lfw(self,
        emb:np.ndarray, # `(N, D)` L2-normalised embeddings of `part("lfw")`
        threshold:float=None, # cosine of a threshold from elsewhere
        folds:int=10, # of the protocol
        n_boot:int=1000, # bootstrap draws over people (the first of each pair)
    ) -> tuple: # name -> `metric`; draws of the accuracy
        "LFW View 1: accuracy by ten folds, AUC, and what a threshold from elsewhere reaches"
        rows, pairs = self.part("lfw")[0], read_pairs(self.raw/"lfw-view1-devtest"/"pairsDevTest.txt")
        at = dict(zip(rows.image_id, range(len(rows))))
        lost = pairs[~(pairs.a.isin(at) & pairs.b.isin(at))]
        if len(lost):
            raise InputError(f"{len(lost)} pairs of LFW have no aligned face, the first is {lost.a.iloc[0]} and "
                             f"{lost.b.iloc[0]}: see the unreadable ones in faces.json")
        a, b = ([at[i] for i in pairs[k]] for k in "ab")
        score, same = (emb[a]*emb[b]).sum(1), pairs.same.to_numpy()
        ten = tenfold(score, same, folds)
        value, draws = closed_set(ten["right"], rows.identity.to_numpy()[a], n_boot)
        out = dict(lfw_view1_accuracy=value | dict(value=ten["accuracy"], unit="share of pairs"),
                   lfw_auc=auc_of((score[same], score[~same])))
        if threshold is not None:
            out["tar_at_threshold_lfw"] = share_above(score[same], threshold)
            out["far_at_threshold_lfw"] = share_above(score[~same], threshold)
        return out, draws

    def top1(self,
        model:FaceEmbedder, # trained on the train photographs of some of the people
        n_boot:int=1000, # bootstrap draws over people
    ) -> tuple: # `metric` and draws; `None` and `None` when nothing was kept for testing
        "Closed-set accuracy on the test photographs; by the nearest training photograph for a head without classes"
        rows, faces = self.part("test")
        known = np.isin(rows.identity, model.classes)
        ids = rows.identity.to_numpy()[known]
        if not known.any(): return None, None
        if not model.model["head"].classifies: return self.nearest(model, n_boot)
        return closed_set(model.classify(faces[known]) == ids, ids, n_boot)

    def nearest(self,
        model:FaceEmbedder, # trained on the train photographs of some of the people
        n_boot:int=1000, # bootstrap draws over people
    ) -> tuple: # `metric` and draws
        "Closed-set accuracy by the nearest training photograph: what the embeddings know, whatever the head"
        train, near = self.part("train")
        rows, faces = self.part("test")
        known = np.isin(rows.identity, train.identity)
        ids = rows.identity.to_numpy()[known]
        found = (model.embed(faces[known]) @ model.embed(near).T).argmax(1)
        return closed_set(train.identity.to_numpy()[found] == ids, ids, n_boot)

    def calibrate(self,
        embed, # faces -> embeddings
        genuine:np.ndarray, # cosines of the unseen people's genuine pairs
        impostor:np.ndarray, # and of their impostor pairs
        target_far:float=0.001, # wanted false accept rate
        n_boot:int=200, # bootstrap draws over people
    ) -> tuple: # name -> `metric`, curves, what the checkpoint should hold
        "Threshold and probability from the calibration people, and what they are worth on the unseen ones"
        rows, faces = self.part("calibration")
        emb, ids = embed(faces), rows.identity.to_numpy()
        kept = pair_scores(emb, ids)
        cut, fitted = calibrated_threshold(emb, ids, target_far, n_boot), fit_probability(*kept)
        t, out = cut["threshold"], dict(auc_calibration=auc_of(kept))
        out["threshold"] = metric(t, cut["low"], cut["high"], cut["n_impostor"], "cosine")
        out["tar_at_threshold_calibration"] = metric(cut["tar"], n=len(kept[0]), unit="share")
        out["far_at_threshold_unseen"] = share_above(impostor, t)
        out["tar_at_threshold_unseen"] = share_above(genuine, t)
        rel = {k: reliability(genuine, impostor, fitted, isotonic=k == "isotonic") for k in ("logistic", "isotonic")}
        out |= {f"{k}_{name}": metric(r[k], n=sum(r["n"]), unit=k) for name, r in rel.items() for k in ("ece", "brier")}
        stored = dict(threshold=cut, probability=fitted)
        return out, dict(reliability=rel) | stored, stored

    def attributes(self,
        emb:np.ndarray, # `(N, D)` embeddings of `part(*roles)`
        threshold:float, # cosine
        names:list=ATTRIBUTES, # which
        n_boot:int=1000, # bootstrap draws over people
        roles:tuple=("unseen",), # whose errors
    ) -> dict: # attribute -> what `attribute_errors` returns
        "Errors of people held out within and across CelebA's attributes"
        rows = self.part(*roles)[0]
        ids, known = rows.identity.to_numpy(), self.known(rows, names)
        return {k: attribute_errors(emb, ids, h, threshold, n_boot) for k, h in zip(names, known.T)}

    def where_it_fails(self,
        model:FaceEmbedder, # trained
        emb:np.ndarray, # `(N, D)` its embeddings of `part("unseen")`
        threshold:float, # cosine
        n_boot:int=1000, # bootstrap draws over people
    ) -> dict: # curves: attributes and, of the people in photographs who are in no training, attributes_photographs
        "Errors by attribute, in both kinds of pictures"
        found, roles = dict(attributes=self.attributes(emb, threshold, n_boot=n_boot)), ("calibration", "wild_unseen")
        rows, faces = self.part(*roles)
        if (rows.source == "wild").all():
            wild = self.attributes(model.embed(faces), threshold, n_boot=n_boot, roles=roles)
            found["attributes_photographs"] = wild
        return found

    def angles(self,
        model:FaceEmbedder, # trained
    ) -> dict: # edges in degrees, counts: own, other
        "Degrees from every fifth training face to its own class centre and to the nearest other one"
        train, seen = self.part("train")
        known = np.flatnonzero(np.isin(train.identity, model.classes))[::5]
        label = np.searchsorted(model.classes, train.identity.to_numpy()[known])
        edges, (own, other) = np.arange(0, 181, 3), own_angles(model.model, seen[known], label)
        counts = {k: np.histogram(v, edges)[0].tolist() for k, v in dict(own=own, other=other).items()}
        return dict(edges=edges.tolist(), **counts)

    def pictures(self,
        model:FaceEmbedder, # trained
        emb:np.ndarray, # `(N, D)` its embeddings of `part("unseen")`
        n_people:int=50, # people in the t-SNE
    ) -> tuple: # name -> `metric`; curves: norms, tsne, angles
        "Numbers for pictures: feature norm against sharpness, the same people in the plane, angles to centres"
        from scipy.stats import spearmanr
        rows, faces = self.part("unseen")
        norm, sharp = model.norms(faces), rows.sharpness.to_numpy()
        curves = dict(norms=norms_by_sharpness(norm, sharp), tsne=in_the_plane(emb, rows.identity.to_numpy(), n_people),
                      angles=self.angles(model))
        rho = metric(float(spearmanr(norm, sharp)[0]), n=len(norm), unit="Spearman's rho")
        return dict(norm_against_sharpness=rho), curves

    def numbers(self,
        embed, # aligned faces uint8 `(N, S, S, 3)` -> L2-normalised embeddings
        n_boot:int=1000, # bootstrap draws over people
        fars:tuple=FARS, # false accept rates; those that the pairs cannot resolve are left out
    ) -> tuple: # name -> `metric`, draws (DataFrame), curves, unseen embeddings, what a checkpoint should hold
        "What can be said of any embedding, trained or not"
        rows, faces = self.part("unseen")
        emb = embed(faces)
        out, draws, curves, scores = unseen_numbers(emb, rows.identity.to_numpy(), fars, n_boot)
        more, curves["calibration"], stored = self.calibrate(embed, *scores)
        lfw = embed(self.part("lfw")[1])
        pairs, draws["lfw_view1_accuracy"] = self.lfw(lfw, stored["threshold"]["threshold"], n_boot=n_boot)
        return out | more | pairs | self.in_photographs(embed), draws, curves, emb, stored

    def in_photographs(self,
        embed, # faces -> embeddings
    ) -> dict: # name -> `metric`; nothing where all people of the photographs train
        "People held out, in photographs of their own"
        rows, faces = self.part("wild_unseen")
        if not len(rows): return {}
        kept = pair_scores(embed(faces), rows.identity.to_numpy())
        return dict(auc_wild_unseen=auc_of(kept, f"AUC, {rows.identity.nunique()} people"))

    def training_numbers(self, done, model):
        "What the training says of itself"
        weights = sum(p.numel() for p in model.model["backbone"].parameters())
        return dict(train_seconds=metric(done["seconds"], unit="s of wall time, beside other jobs"),
                    train_images=metric(done["n_train"], unit="faces"),
                    train_people=metric(done["n_people"], unit="people"), parameters=metric(weights, unit="weights"))

    def measure(self,
        name:str, # a key of `recipes`
        seed:int=0, # a finished training
        n_boot:int=1000, # bootstrap draws over people
        attributes:bool=False, # errors by attribute too
    ) -> tuple: # metrics, draws, curves
        "Measure one training and store its calibration; what was measured before is read"
        self = self.sized(name)
        run = self.runs/f"{name}-{seed}"
        done = read_json(run/"trained.json")
        said = fingerprint(done["said"], self.key, n_boot, attributes)
        old = read_json(run/"measured.json") if (run/"measured.json").exists() else dict(said=None)
        if old["said"] == said: return old["metrics"], pd.read_csv(run/"draws.csv"), old["curves"]
        out, draws, curves = self.measure_now(name, run, done, n_boot, attributes)
        with atomic_path(run/"draws.csv") as temp: draws.to_csv(temp, index=False)
        write_json(run/"measured.json", dict(said=said, metrics=out, curves=curves))
        written = read_json(run/"measured.json")
        return written["metrics"], draws, written["curves"]

    def measure_now(self, name, run, done, n_boot, attributes):
        "Metrics, draws and curves of one training; puts the calibration into its checkpoint"
        short = short_name(self.recipes[name].head)
        model = FaceEmbedder.load(run/f"best_{short}.pth")
        model.model.to(memory_format=torch.channels_last) # faster
        out, draws, curves, emb, stored = self.numbers(model.embed, n_boot)
        found, drawn = (None, None) if self.recipes[name].with_test else self.top1(model, n_boot)
        if found: out["top1"], draws["top1"] = found, drawn
        more, curves["pictures"] = self.pictures(model, emb)
        if attributes: curves |= self.where_it_fails(model, emb, out["threshold"]["value"], n_boot)
        curves["log"] = read_log(run, short).drop(columns="model").round(5).to_dict("list")
        store_calibration(run/f"best_{short}.pth", **stored)
        return out | more | self.training_numbers(done, model), draws, curves

    def over_seeds(self,
        name:str, # a key of `recipes`
        n_boot:int=1000, # bootstrap draws over people
        attributes:bool=False, # see `measure`
    ) -> tuple: # metrics over the seeds, draws of every seed, curves of the first seed with all values, seeds
        "All finished trainings of a recipe as one"
        seeds = self.trained(name)
        if not seeds:
            job = f"{name}:{self.recipes[name].seeds[0]}"
            raise InputError(f"no training of {name!r} is finished in {self.runs}: "
                             f"run python -m studies.recognition --train {job}")
        got = [self.measure(name, s, n_boot, attributes and s == seeds[0]) for s in seeds]
        metrics, draws, curves = (list(part) for part in zip(*got))
        values = {k: [m[k]["value"] for m in metrics] for k in draws[0]}
        return mean_over_seeds(metrics, draws), draws, curves[0] | dict(seeds=values), seeds


def mean_over_seeds(metrics, draws):
    "Means over the seeds: with interval and `_seed_sd` where people were drawn, bare otherwise"
    out = {}
    for k, m in metrics[0].items():
        each = [other.get(k, m)["value"] for other in metrics]
        out[k] = m
        if None in each: continue
        out[k] = m | dict(value=float(np.mean(each)))
        if k in draws[0]:
            _, low, high = interval(np.mean([d[k] for d in draws], 0), np.mean(each))
            out[k] |= dict(low=low, high=high)
        elif len(each) > 1: out[k] |= dict(low=None, high=None)
        if k in draws[0] and len(each) > 1:
            sd = float(np.std(each, ddof=1))
            out[f"{k}_seed_sd"] = metric(sd, n=len(each), unit="standard deviation over seeds")
    return out


def drawn_with_seeds(draws, key, rng):
    "The draws of one number when the seed is drawn together with the people"
    m = np.array([d[key] for d in draws])
    pick = rng.integers(len(m), size=(m.shape[1], len(m)))
    return m[pick, np.arange(m.shape[1])[:, None]].mean(1)


def paired_difference(
    a:list, # draws of system a, a DataFrame a seed; the same people in the same row
    b:list, # draws of system b
    values_a:dict, # name -> list of values, one a seed
    values_b:dict, # likewise
    seed:int=0, # of the draws of seeds
) -> dict: # name -> dict(value, low, high, p): a minus b, 95 % interval and one-sided p that a is not better
    "Paired bootstrap over people and seeds; for eer, smaller is better"
    rng, out = np.random.default_rng(seed), {}
    for k in [c for c in a[0] if all(c in d for d in [*a, *b])]:
        d = drawn_with_seeds(a, k, rng) - drawn_with_seeds(b, k, rng)
        d = d[np.isfinite(d)]
        values = [[v for v in s[k] if v is not None] for s in (values_a, values_b)]
        if not len(d) or not all(values): continue
        value, low, high = interval(d, np.mean(values[0]) - np.mean(values[1]))
        better = d < 0 if k.startswith("eer") else d > 0
        out[k] = dict(value=value, low=low, high=high, p=float((1 + (~better).sum())/(1 + len(d))))
    return out
