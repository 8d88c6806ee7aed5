"Pages that cannot contradict themselves: rules over all pages, and small made-up pages that lie, to see them caught."
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
sys.path.append(str(ROOT/"tools"))

import pages  # noqa: E402
from pages import Cell  # noqa: E402


@pytest.mark.parametrize("page", pages.pages(), ids=lambda p: p.stem)
def test_page_keeps_its_word(page):
    bad = pages.complaints(pages.read(page), pages.EXCEPTIONS.get(page.stem, ()))
    assert not bad, "\n".join(bad)


@pytest.mark.parametrize("page", [p for p in pages.pages() if pages.is_story(p)], ids=lambda p: p.stem)
def test_story_is_one(page):
    assert not (bad := pages.story(pages.read(page))), "\n".join(bad)


def test_exceptions_are_sentences_of_pages():
    "An exception that no page needs any more is taken out"
    for page in pages.pages():
        said = [s for c in pages.read(page) if c.kind == "markdown" for s in pages.sentences(c.source)]
        for begin in pages.EXCEPTIONS.get(page.stem, ()):
            assert any(s.startswith(begin) for s in said), f"{page.stem}: nothing begins with {begin!r}"


# the rules themselves, on made-up pages

MARKDOWN = [dict(output_type="display_data", data={"text/markdown": ["made"]})]


def text(s): return Cell("markdown", s, [])
def code(s, outputs=()): return Cell("code", s, list(outputs))


FINDINGS = text("## Findings")
MADE = code('#| echo: false\nMarkdown(f"ArcFace reached {auc:.3f} (n = {n:,}).")', MARKDOWN)


def test_a_page_that_tells_the_truth_is_left_alone():
    start = [text("# Faces\n\n> 5 points"), text("## Data"), text("There are 40 people."), code("x = 1")]
    end = [FINDINGS, text("See [the 3 losses](x.ipynb) and `rank1`."), MADE, text("## Limits"), text("Of 5 people.")]
    assert not pages.complaints(start + end)


def test_a_typed_number_in_findings_is_caught():
    got = pages.findings([FINDINGS, text("ArcFace reached 0.94 there."), MADE])
    assert got == ["Findings: the number '0.94' is typed: let code say it"]
    assert "'1,000'" in pages.findings([text("## Findings\n\n- 1,000 people are there"), MADE])[0]
    assert "'quarter'" in pages.findings([FINDINGS, text("A quarter of the strangers get a name."), MADE])[0]


@pytest.mark.parametrize("sentence", [
    "ArcFace was ahead in rank-1.", "It is faster.", "It more than halves the error.", "Both are twice as sharp.",
    "The margin outperforms the rest.", "Fewer strangers\nget a name."])
def test_a_typed_comparison_in_findings_is_caught(sentence):
    assert any("let code choose the sentence" in b for b in pages.findings([FINDINGS, text(sentence), MADE]))


@pytest.mark.parametrize("sentence", [
    "`0.94` is asserted.", "![A curve, n = 40](roc_2.png)", "See [02](02_face.ipynb).",
    "Rank-1, top-1, IR-50 are names.",
    "As Deng et al. 2019 say in section 3.1.", "```\nx = 0.5\n```", "With 95 % intervals.", "$x > 0.5$ is allowed."])
def test_what_is_no_result_may_stand_in_findings(sentence):
    assert not pages.findings([FINDINGS, text(sentence), MADE])


def test_findings_without_code_are_caught():
    assert pages.findings([FINDINGS, text("It works.")]) == ["Findings: no code cell shows its sentences as Markdown"]
    assert pages.findings([FINDINGS, code("print('0.94')", [dict(output_type="stream", text="0.94")])])
    assert pages.findings([FINDINGS, code(MADE.source)]), "a cell that was never run shows nothing"
    assert not pages.findings([text("## What we do"), text("no findings, no rule")])


@pytest.mark.parametrize("source,caught", [
    ('Markdown(f"It reached 0.94 in {n} people")', "'0.94'"),
    ('Markdown(f"{n} people, 94 % of them")', "'94 %'"),
    ('Markdown("1,198 photographs")', "'1,198'"),
    ('said = f"{x:.2f} against 0.5"\nMarkdown(said)', "'0.5'"),
    ('display(Markdown("\\n".join(["a 3.1", b])))', "'3.1'"),
    ('Markdown(f"{x:.2f} of {n:,}")', None),
    ('Markdown(f"{x:6.3f}, 95 % interval {low:.2f} to {high:.2f}")', None),
    ('%matplotlib inline\nassert round(x, 2) == 0.94\nMarkdown(f"{x:.2f}")', None),
    ('Markdown(f"Rank-1 of {n} people in 2 groups")', None)])
def test_numbers_typed_into_code_are_caught(source, caught):
    bad = pages.findings([FINDINGS, code(source, MARKDOWN)])
    assert (caught in bad[0]) if caught else not bad


def test_findings_end_at_the_next_heading():
    assert not pages.findings([FINDINGS, MADE, text("## Limits\n\nOnly 40 people.")])
    assert pages.findings([FINDINGS, MADE, text("### Speed\n\nOnly 40 ms.")]), "a heading below belongs to it"
    assert pages.findings([text("Before.\n\n## Findings\n\nIt has 40 people.\n\n## Next\n\n50."), MADE])
    assert not pages.findings([text("```\n## Findings\n0.5\n```")]), "a heading in code is none"


CLAIM = text("ArcFace finds more than 90 of 100 people.")


def test_a_comparison_with_a_number_needs_an_assert_nearby():
    assert "'more than'" in pages.comparisons([CLAIM, code("plot(x)")])[0]
    assert not pages.comparisons([CLAIM, code("assert round(x, 2) == 0.95")])
    assert not pages.comparisons([CLAIM, code("plot(x)"), text("So."), code("test_eq(round(x, 2), .95)")])
    assert pages.comparisons([CLAIM, code("plot(x)"), code("plot(y)"), code("assert x")]), "too far away to be seen"
    assert pages.comparisons([code("assert x == 1"), CLAIM]), "what came before does not count"
    assert not pages.comparisons([CLAIM, code("1")], ["ArcFace finds"]), "an exception that is listed"


@pytest.mark.parametrize("sentence", [
    "ArcFace finds more people.", "It finds 90 of 100 people.", "More than a few. There are 90.",
    "`more than 90` it says.",
    "Larger margins, see [90](x.ipynb).", "*best* has 4 blocks.", "More than usual, as Deng et al. 2019 say."])
def test_a_comparison_or_a_number_alone_needs_none(sentence):
    assert not pages.comparisons([text(sentence)])


@pytest.mark.parametrize("sentence", [
    "It is twice as fast: 3 ms.", "More than a quarter of the strangers get a name.",
    "- one\n- it halves the error, 0.26 to 0.05",
    "| model | result |\n|---|---|\n| a | 0.9, better than b |", "Blurred faces are harder (0.047,\nn = 23)."])
def test_comparisons_are_found_wherever_they_stand(sentence):
    assert len(pages.comparisons([text(sentence)])) == 1


def test_sentences_end_where_they_end():
    got = list(pages.sentences("Of 5. There are 0.5 of it, e.g. two!\n\n- one\n- two 3.\n  Four\n\n| a | b |"))
    assert got == ["Of 5.", "There are 0.5 of it, e.g. two!", "one", "two 3.", "Four", "| a | b |"]


def test_words_said_otherwise_here():
    assert len(pages.wording([text("An honest table, 3 ms a face.\n\nIt leaves\nzero out: `honest`.")])) == 2 + 1
    assert not pages.wording([code("honest = 1")])


def test_a_story_has_a_picture_soon_and_its_three_ends():
    picture = code("plot()", [dict(output_type="display_data", data={"image/png": "..."})])
    prose = text(" ".join(["word"]*800))
    end = [text(f"## {t}") for t in ("Your CelebA", "Findings", "Limits", "Next")]
    assert not pages.story([prose, *[picture]*6, *end])
    assert pages.story([prose, *[code("1")]*12, *[picture]*6, *end]) == ["no picture within the first ten cells"]
    assert pages.story([prose, *[picture]*3, *end]) == ["3 pictures instead of 6 to 10"]
    assert pages.story([text("short"), *[picture]*6, *end])[0].endswith("words instead of 600 to 1,200")
    assert "does not end in" in pages.story([prose, *[picture]*6, *end[:2], end[3], end[2]])[0]
    assert "does not end in" in pages.story([prose, *[picture]*6, *end, text("## More")])[0]
    assert pages.story([prose, *[picture]*6, *end[1:]]) == ["no chapter 'Your CelebA'"]
