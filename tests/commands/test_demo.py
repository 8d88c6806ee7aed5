"A small demo runs from a drawn folder to a report, and a second one has nothing to do; so does a folder of two people."
import json

import pytest

from facerec_nb.apps.demo import DemoCfg, run_demo
from facerec_nb.core.files import InputError
from facerec_nb.datasets.synthetic import synthesise


def test_demo_runs_and_is_skipped_when_nothing_has_changed(tmp_path, capsys):
    settings = dict(out=tmp_path/"demo", cfg=DemoCfg(ids=10, per_id=14, unseen=0.4, landmark_epochs=2, epochs=1))
    first = run_demo(**settings)
    report = json.loads((tmp_path/"demo/report.json").read_text())
    headline = {"nme_unseen", "top1_ce", "top1_arcface", "rank1", "false_names", "reference_first"}
    assert headline <= set(report["metrics"])
    assert all(m["n"] for m in report["metrics"].values()), "a number without its denominator"
    page = (tmp_path/"demo/report.html").read_text()
    assert page.count("data:image/png;base64,") >= 3 and "http" not in page.replace("http://www.w3.org", "")
    for name in ("best_stacked_hg.pth", "best_ce.pth", "best_af.pth", "gallery.db", "log.jsonl",
                 "data-for-alignment/selected_images.csv", "data-for-recognition/aligned_pred_all.csv"):
        assert (tmp_path/"demo"/name).exists(), name

    capsys.readouterr()
    again = run_demo(**settings)
    assert capsys.readouterr().out.count("unchanged, skipped") == len(first["stages"])
    assert again["metrics"] == first["metrics"]

    def numbers(out):
        r = json.loads((out/"report.json").read_text())
        curves = {k: v for k, v in r["curves"].items() if k != "stage_seconds"}
        return r["metrics"], curves, r["data"], r["seeds"]

    run_demo(**settings | dict(out=tmp_path/"other", quiet=True))
    same = "the same seed on the same machine gives the same report, timings aside"
    assert numbers(tmp_path/"other") == numbers(tmp_path/"demo"), same


# people, photographs each -> what is said before anything is trained, a number that is measured, one that is not
FEW = {
    (2, 2): (["no embedder is trained", "nobody is held out"], "named_right", "false_names"),
    (3, 4): (["no embedder is trained", "compared in pairs only"], "false_names", "auc_unseen_start"),
    (5, 8): (["compared in pairs only"], "auc_unseen_arcface", "rank1_unseen_arcface"),
    (9, 7): ([], "rank1_unseen_start", "dir_at_fpir01_unseen_start"),
}


@pytest.mark.parametrize("people, each", FEW)
def test_any_folder_from_two_people_on_ends_with_a_report(tmp_path, capsys, people, each):
    said, measured, missing = FEW[people, each]
    folder = synthesise(tmp_path/"photographs", ids=people, per_id=each, seed=1)
    cfg = DemoCfg(landmark_epochs=1, epochs=1, skip="nothing" if people > 5 else "")
    metrics = run_demo(tmp_path/"run", folder, cfg)["metrics"]
    before_training = capsys.readouterr().out.partition("landmarks  ")[0]
    assert all(s in before_training for s in said) and before_training.count("needed are") == (people < 5)
    record = json.loads((tmp_path/"run/report.json").read_text())
    assert record["metrics"] == metrics and record["data"]["start"] == "faces"
    assert metrics[measured]["value"] is not None and metrics[missing]["value"] is None
    assert all(m["value"] is not None or m["why"] for m in metrics.values()), "a number is missing without a reason"
    page = (tmp_path/"run/report.html").read_text()
    assert all(s in page for s in said) and "the start itself" in page


@pytest.mark.parametrize("changes, message", [
    (dict(skip="names"), "'names' cannot be left out: --skip takes landmarks, ce, arcface, nothing"),
    (dict(start="imagenet"), "use nothing or faces"),
    (dict(ids=1, per_id=8), "at least 2 people with 2 photographs each, there are 1 among 1"),
])
def test_what_cannot_be_done_is_said_before_anything_is_trained(tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        run_demo(tmp_path/"run", cfg=DemoCfg(**changes), quiet=True)
    assert not list((tmp_path/"run").glob("*.pth"))
