"""What two recipes select from CelebA's official annotations.

Writes results/annotations/selection.json, which story 01 draws from.

    python -m studies.selection [--folder ../shared/data/celeba-annotations] [--out results/annotations]
"""
import argparse
import time
from dataclasses import replace
from pathlib import Path

from facerec_nb.datasets.celeba_files import load_celeba
from facerec_nb.datasets.recipes import INFORMATIVE, AttributeRich, BalancedIdentities
from facerec_nb.datasets.preparation import compare_attributes
from facerec_nb.core.records import metric, record, write_record

TARGETS = (0.05, 0.1, 0.15, 0.2, 0.25, 0.3) # shares


def rarest(rows):
    "Share of the rarest informative attribute"
    return float(rows[INFORMATIVE].mean().min())


def changes(before, after):
    "The change of every attribute with its interval, ready to plot"
    return compare_attributes(before, after).drop(columns="attribute").round(5).to_dict("list")


def selection_metrics(full, chosen, rich, recipe, seconds, n):
    "Sizes of the two selections, and what became of the rarest attribute"
    return dict(balanced_images=metric(len(chosen)), balanced_people=metric(chosen.identity.nunique()),
                rich_images=metric(len(rich)), rich_people=metric(rich.identity.nunique()),
                rich_target=metric(recipe.target, unit="share"),
                rarest_before=metric(rarest(full), n=len(full), unit="share"),
                rarest_after=metric(rarest(rich), n=len(rich), unit="share"),
                seconds=metric(seconds, n=n, unit="s"))


def selection_curves(full, boxed, balanced, rich, targets=TARGETS):
    "Metrics and curves: what `balanced` selects from `boxed` and `rich` from `full`, and what targets `rich` can reach"
    trace, start = [], time.perf_counter()
    a, b = balanced.select(boxed), rich.select(full, trace)
    seconds = time.perf_counter() - start
    reached = [rarest(replace(rich, target=t).select(full)) for t in targets]
    metrics = selection_metrics(full, a, b, rich, seconds, len(boxed) + len(full))
    return metrics, dict(balanced=changes(boxed, a), rich=changes(full, b), trace=trace, targets=targets,
                         target_rarest=reached)


def record_selection(folder="../shared/data/celeba-annotations", out="results/annotations",
                     balanced=BalancedIdentities(), rich=AttributeRich(min_box=0)):
    "Measure what the recipes do to the annotations in a folder and write `out`/selection.json"
    full = load_celeba(folder, images=False, need=("attributes", "identity"))
    boxed = load_celeba(folder, images=False)
    data = dict(name="CelebA, official annotations", fingerprint=full.fingerprint, n_images=len(full),
                n_people=full.table.identity.nunique(), n_boxed=len(boxed))
    rec = record(f"What two recipes select: {balanced} and {rich}", "python -m studies.selection", data,
                 *selection_curves(full.table, boxed.table, balanced, rich), seeds=[balanced.seed, rich.seed])
    write_record(Path(out)/"selection.json", rec)
    return rec


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", default="../shared/data/celeba-annotations")
    parser.add_argument("--out", default="results/annotations")
    record_selection(**vars(parser.parse_args()))


if __name__ == "__main__": main()
