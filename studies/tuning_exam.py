"""One exam for every recogniser of the tuning study, written before any was tried: calibration people, LFW View 1."""
import cv2
import numpy as np
import pandas as pd

from facerec_nb.core.metrics import tenfold
from facerec_nb.evaluation.verification import PairCurve, people_weights, read_pairs
from facerec_nb.datasets.celeba_files import POINT_COLUMNS

FARS = (1e-3, 1e-4)
REFS = (1, 3, 5)
PROBES = 10  # photographs of each calibration person that are degraded; the references are drawn from the others


# Degraded copies

def dim(face): return np.rint(face*.12).astype(np.uint8)
def lifted(face): return np.clip(np.rint(dim(face)*(110/max(dim(face).mean(), 1))), 0, 255).astype(np.uint8)
def bright(face): return np.clip(face*2.6, 0, 255).astype(np.uint8)
def grey(face): return np.repeat(cv2.cvtColor(face, cv2.COLOR_RGB2GRAY)[..., None], 3, 2)

def small(face, side=32):
    "A face of some 24 px: the chip shrunk to 32 px and enlarged again"
    low = cv2.resize(face, (side, side), interpolation=cv2.INTER_AREA)
    return cv2.resize(low, face.shape[:2], interpolation=cv2.INTER_LINEAR)

def jpeg(face, quality=10):
    "What a strong compression leaves"
    data = cv2.imencode(".jpg", face[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])[1]
    return cv2.imdecode(data, cv2.IMREAD_COLOR)[..., ::-1]

def misplaced(face, degrees=8., shift=6., scale=.94):
    "What badly found points leave: a turn, a shift and a zoom of the chip"
    middle = (face.shape[1] - 1)/2
    M = cv2.getRotationMatrix2D((middle, middle), degrees, scale)
    M[0, 2] += shift
    return cv2.warpAffine(face, M, face.shape[:2], flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)

DEGRADED = dict(dim=dim, lifted=lifted, bright=bright, small=small, jpeg=jpeg, grey=grey, misplaced=misplaced)


# How far a head is turned, by its five points

def turned(rows):
    "Distance of the nose from the line between the eyes' middle and the mouth's, over that line's length"
    p = rows[POINT_COLUMNS].to_numpy(float).reshape(-1, 5, 2)
    eyes, mouth = p[:, :2].mean(1), p[:, 3:].mean(1)
    line = mouth - eyes
    across = np.stack([-line[:, 1], line[:, 0]], 1)
    return np.abs(((p[:, 2] - eyes)*across).sum(1))/(line**2).sum(1)


# Rates for any weights of the people

def drawn_rates(hit, alarm, of_hit, of_alarm, W, fpir=.01):
    "Share of the hits above the strangers' threshold, numerators and denominators, a number for each row of W"
    order = np.argsort(-alarm, kind="stable")
    share = np.cumsum(W[:, of_alarm[order]], 1)
    first = (share/share[:, -1:] <= fpir + 1e-12).sum(1)
    t = alarm[order][np.minimum(first, len(alarm) - 1)]
    w = W[:, of_hit]
    return (w*(hit[None] > t[:, None])).sum(1), w.sum(1)


def drawn_exam(score, of_probe, of_ref, n_people, k, W, rng, refs_from=None):
    "One exam: half of the people enrolled with k references; rank-1 and DIR, numerators and denominators"
    people = rng.permutation(n_people)
    mine, pool = people[:n_people//2], np.arange(len(of_ref)) if refs_from is None else np.flatnonzero(refs_from)
    refs = np.concatenate([rng.permutation(pool[of_ref[pool] == p])[:k] for p in mine])
    asked = np.arange(len(of_probe)) if refs_from is not None else np.setdiff1d(np.arange(len(of_probe)), refs)
    s = score[np.ix_(asked, refs)]
    best, who = s.max(1), of_ref[refs][s.argmax(1)]
    known, right = np.isin(of_probe[asked], mine), who == of_probe[asked]
    hit = np.where(right, best, -np.inf)[known]
    dir_ = drawn_rates(hit, best[~known], of_probe[asked][known], of_probe[asked][~known], W)
    w = W[:, of_probe[asked][known]]
    return dict(rank1=((w*right[known]).sum(1), w.sum(1)), dir=dir_)


def exams(score, of_probe, of_ref, n_people, k, W, draws, seed, refs_from=None):
    "Rank-1 and DIR over many exams, for every row of W"
    rng, total = np.random.default_rng([seed, k]), {}
    for _ in range(draws):
        for name, (a, b) in drawn_exam(score, of_probe, of_ref, n_people, k, W, rng, refs_from).items():
            old = total.get(name, (0, 0))
            total[name] = old[0] + a, old[1] + b
    return {name: a/b for name, (a, b) in total.items()}


def pair_rates(genuine, impostor, Wg, Wi, fars):
    "AUC, equal error and TAR at FAR of some pairs, for every row of the weights"
    score, same = np.r_[genuine, impostor], np.r_[np.ones(len(genuine), bool), np.zeros(len(impostor), bool)]
    order, out = np.argsort(-score, kind="stable"), []
    same = same[order]
    for wg, wi in zip(Wg, Wi):
        w = np.r_[wg, wi][order]
        tp, fp = np.cumsum(w*same), np.cumsum(w*~same)
        tp, fp = tp/tp[-1], fp/fp[-1]
        row = dict(auc=float(np.trapezoid(np.r_[0, tp], np.r_[0, fp])), accuracy=float((1 + (tp - fp).max())/2))
        for f in fars: row[f"tar{f:g}"] = float(tp[max(np.searchsorted(fp, f + 1e-12, side="right") - 1, 0)])
        out.append(row)
    return pd.DataFrame(out)


class Exam:
    "Faces, people and questions; `numbers` gives a table: first row the values, then one row a bootstrap draw"
    def __init__(self, table, faces, pairs, n_boot=200, draws=40, seed=0):
        self.n_boot, self.draws, self.seed = n_boot, draws, seed
        pick = {role: table[table.role == role].reset_index(drop=True) for role in ("calibration", "unseen", "lfw")}
        self.rows, at = pick, {}
        self.who = {k: np.unique(v.identity, return_inverse=True)[1] for k, v in pick.items()}
        self.W = {k: np.r_[np.ones((1, w.max() + 1)), people_weights(w.max() + 1, n_boot, seed)]
                  for k, w in self.who.items()}
        at = dict(zip(pick["lfw"].image_id, range(len(pick["lfw"]))))
        self.pairs = pairs.assign(i=pairs.a.map(at), j=pairs.b.map(at))
        self.yaw = {k: turned(v) for k, v in pick.items()}
        kept = pick["calibration"].groupby("identity").cumcount(ascending=False) < PROBES
        self.probe = np.flatnonzero(kept)
        self.sets = {k: faces[v.row.to_numpy()] for k, v in pick.items()}
        degraded = {k: np.stack([f(x) for x in self.sets["calibration"][self.probe]]) for k, f in DEGRADED.items()}
        self.sets |= degraded

    def numbers(self,
        emb, # name of a set -> `(N, D)` L2-normalised; without the degraded sets their questions are left out
        fars=FARS, # false accept rates
    ):
        "All numbers of one recogniser: the values, then a row for each bootstrap draw"
        out = self.pairwise(emb, "calibration", fars) | self.pairwise(emb, "unseen", fars)
        out |= self.people(emb["calibration"]) | self.lfw(emb["lfw"]) | self.pose(emb)
        if all(k in emb for k in DEGRADED): out |= self.worse(emb)
        return pd.DataFrame(out)

    def pairwise(self, emb, role, fars):
        curve = PairCurve(emb[role], self.who[role])
        rows = pd.DataFrame([curve.values(w, fars) for w in self.W[role]])
        names = dict(auc="auc") | {c: f"tar{f:g}" for c, f in zip(rows.columns[2:], fars)}
        return {f"{role}_{new}": rows[old] for old, new in names.items()}

    def people(self, emb):
        who, W, out = self.who["calibration"], self.W["calibration"], {}
        for k in REFS:
            got = exams(emb @ emb.T, who, who, W.shape[1], k, W, self.draws, self.seed)
            out |= {f"{name}_{k}": v for name, v in got.items()}
        return out

    def lfw(self, emb):
        i, j, same = (self.pairs[c].to_numpy() for c in ("i", "j", "same"))
        score, W = (emb[i]*emb[j]).sum(1), self.W["lfw"]
        a = self.who["lfw"][i]
        right = tenfold(score, same, 10)["right"]
        acc = (W[:, a]*right).sum(1)/W[:, a].sum(1)
        rates = pair_rates(score[same], score[~same], W[:, a[same]], W[:, a[~same]], (1e-2,))
        every = self.lfw_all(emb)
        return {"lfw_accuracy": acc, "lfw_auc": rates.auc} | every

    def lfw_all(self, emb):
        "Genuine pairs of the list against a quarter of all impostor pairs of its photographs: a small FAR needs many"
        i, j, same = (self.pairs[c].to_numpy() for c in ("i", "j", "same"))
        who, W = self.who["lfw"], self.W["lfw"]
        genuine = (emb[i[same]]*emb[j[same]]).sum(1)
        p, q = np.triu_indices(len(emb), 1)
        keep = np.random.default_rng(0).random(len(p)) < .25
        p, q = p[keep], q[keep]
        p, q = p[who[p] != who[q]], q[who[p] != who[q]]
        rates = pair_rates(genuine, (emb[p]*emb[q]).sum(1), W[:, who[i[same]]], W[:, who[p]]*W[:, who[q]], FARS)
        return {f"lfw_tar{f:g}": rates[f"tar{f:g}"] for f in FARS}

    def pose(self, emb):
        "Frontal against turned heads: the straightest 40 % and the most turned 8 % of each set"
        g, i, Wg, Wi = [], [], [], []
        for role in ("calibration", "unseen"):
            y, who, W = self.yaw[role], self.who[role], self.W[role]
            a, b = np.flatnonzero(y <= np.quantile(y, .4)), np.flatnonzero(y >= np.quantile(y, .92))
            s, p, q = emb[role][a] @ emb[role][b].T, who[a][:, None], who[b][None]
            same = p == q
            g.append(s[same]); i.append(s[~same])
            p, q = np.broadcast_arrays(p, q)
            Wg.append(W[:, p[same]]); Wi.append(W[:, p[~same]]*W[:, q[~same]])
        rates = pair_rates(np.concatenate(g), np.concatenate(i), np.hstack(Wg), np.hstack(Wi), (1e-2, 1e-3))
        return {f"pose_{c}": rates[c] for c in rates}

    def worse(self, emb):
        "Degraded probes against clean references of the same people, 3 each"
        who, W, out = self.who["calibration"], self.W["calibration"], {}
        of_probe, others = who[self.probe], np.ones(len(who), bool)
        others[self.probe] = False
        clean = dict(clean=emb["calibration"][self.probe]) | {k: emb[k] for k in DEGRADED}
        for name, e in clean.items():
            got = exams(e @ emb["calibration"].T, of_probe, who, W.shape[1], 3, W, self.draws, self.seed, others)
            out |= {f"{k}_{name}": v for k, v in got.items()}
        return out


def against(
    a, # numbers of one recogniser
    b, # of another, the same exam
):
    "Paired differences: value, low, high (95 % over people)"
    d = (a - b).iloc[1:]
    return pd.DataFrame(dict(value=a.iloc[0], start=b.iloc[0], difference=a.iloc[0] - b.iloc[0],
                             low=d.quantile(.025), high=d.quantile(.975)))


def open_exam(table, faces, data, **settings):
    "The exam on these aligned faces"
    return Exam(table, faces, read_pairs(data/"lfw-view1-devtest"/"pairsDevTest.txt"), **settings)
