"A small demo runs from a drawn folder to a report, and a second one has nothing to do."
import json

from facerec_nb.apps.demo import DemoCfg, run_demo


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
