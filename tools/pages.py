"""Can a page contradict itself? Lists what a reader could not trust, one sentence each.

    python tools/pages.py                         # every page
    python tools/pages.py nbs/04_pipeline.ipynb   # one

Findings are made by code: their Markdown cells hold neither numbers nor comparisons, and a code cell shows the
sentences that have them as Markdown, with every number put in from a value. Elsewhere a sentence that compares and
holds a number is followed, within two code cells, by an assert or a test.
"""
import ast
import json
import re
import sys
from collections import namedtuple
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
NEAR = 2  # code cells after a sentence in which its assert is looked for
EXCEPTIONS = {}  # page -> beginnings of sentences that need no assert

COMPARISON = re.compile(r"""(?<![*_\w])(?:better|best|worse|worst|ahead|faster|fastest|slower|slowest|fewer|fewest|
    more\s+than|less\s+than|larger|largest|smaller|smallest|bigger|biggest|higher|highest|lower|lowest|stronger|weaker|
    sharper|closer|nearer|easier|harder|cheaper|dearer|longer|shorter|greater|heavier|lighter|(?:twice|times)\s+as|
    halv(?:e|es|ed|ing)|doubl(?:es|ed|ing)|tripl(?:es|ed|ing)|outperform\w*|beats?|exceeds?)\b""", re.I | re.X)
NUMBER = re.compile(r"""(?<![\w-])\d[\d.,]*(?!\w|-bit)|
    \b(?:half|halve[sd]?|thirds?|quarters?|fifths?|tenths?|twice|doubled)\b""", re.I | re.X)
NO_RESULT = re.compile(r"""arXiv:\S+|\bet\s+al\.,?\s+\(?\d{4}|\(\d{4}\)|\b95\s?%\s+(?:confidence\s+)?intervals?|
    \b(?:sections?|equations?|chapters?|figures?|tables?)\s+\d[\d.]*""", re.I | re.X)  # numbers that no run made
TYPED = re.compile(r"\d+[.,]\d+|\d+\s?%(?!\s*(?:confidence\s+)?intervals?)")
CHECKED = re.compile(r"\bassert\b|\btest_\w+\(")
WORDS = {r"\bboxes shaken\b|\bshaken boxes\b": "jittered boxes", r"\bwhom it fails\b": "where it fails",
         r"\blooks? twice\b|\b(?:second|two) looks?\b": "a second pass", r"\bleaves? zero out\b": "excludes zero",
         r"\bms an? (?:face|photograph|photo|picture)\b": "ms per ...",
         r"\bhonest(?:ly)?\b|\bnobody types a number\b": "no self-praise",
         r"\b(?:busy|quiet) machine\b": "nothing about how busy a machine was"}

Cell = namedtuple("Cell", "kind source outputs")
Part = namedtuple("Part", "title text after")  # a piece of Markdown: its chapter, its text, the code cells after it


def pages(root=ROOT):
    "Every notebook of the project"
    return sorted(p for p in (root/"nbs").rglob("*.ipynb") if not any(part.startswith((".", "_")) for part in p.parts))


def read(page):
    "The cells of a notebook"
    return [Cell(c["cell_type"], "".join(c["source"]), c.get("outputs", []))
            for c in json.loads(Path(page).read_text(encoding="utf-8"))["cells"]]


def chapters(cells):
    "The page in order: (the headings above, cell, Markdown text below them or None for code)"
    above, out = [], []
    for cell in cells:
        if cell.kind == "code": out.append((tuple(t for _, t in above), cell, None)); continue
        if cell.kind != "markdown": continue
        fenced, lines = False, []

        def put(cell=cell):
            if "".join(lines).strip(): out.append((tuple(t for _, t in above), cell, "\n".join(lines)))
            lines.clear()
        for line in cell.source.splitlines():
            if line.lstrip().startswith("```"): fenced = not fenced
            m = None if fenced else re.match(r"(#{1,6})\s+(.*)", line)
            if not m: lines.append(line); continue
            put()
            above = [(n, t) for n, t in above if n < len(m[1])] + [(len(m[1]), m[2].strip())]
        put()
    return out


def is_findings(titles): return any(re.match(r"Findings\b", t) for t in titles)


def plain(text):
    "Markdown without code, formulas, comments, pictures and what links show and lead to"
    text = re.sub(r"```.*?```|<!--.*?-->|\$\$.*?\$\$", " ", text, flags=re.S)
    text = re.sub(r"`[^`\n]*`|\$[^$\n]+\$", " ", text)
    return re.sub(r"!?\[(?:[^\[\]]|\[[^\]]*\](?:\([^)]*\))?)*\]\([^)]*\)|https?://\S+|<[a-zA-Z/][^>]*>", " ", text)


def results_only(text): return NO_RESULT.sub(" ", plain(text))


def sentences(text):
    "The sentences of a Markdown text; every item of a list and every row of a table begins anew"
    text = re.sub(r"\n(?=\s*(?:[-*+|>]|\d+[.)]\s))|\n\s*\n", "\0", plain(text))
    for block in text.split("\0"):
        block = re.sub(r"^\s*(?:[-*+>]|\d+[.)])\s+", "", re.sub(r"\s+", " ", block)).strip()
        yield from (s.strip() for s in re.split(r"(?<=[.!?])\s+(?=\W*[A-Z])", block) if s.strip())


def typed_literals(source):
    "The literal text of what a cell shows: f-strings without their fields, and strings that Markdown is called with"
    tree = ast.parse(re.sub(r"^(\s*)[%!].*$", r"\1pass", source, flags=re.M))
    formats = {id(n.format_spec) for n in ast.walk(tree) if isinstance(n, ast.FormattedValue) and n.format_spec}
    inner = {id(v) for n in ast.walk(tree) if isinstance(n, ast.JoinedStr) for v in n.values}
    for n in ast.walk(tree):
        if isinstance(n, ast.JoinedStr) and id(n) not in formats:
            yield from (v.value for v in n.values if isinstance(v, ast.Constant))
        if isinstance(n, ast.Call) and getattr(n.func, "id", getattr(n.func, "attr", "")) == "Markdown":
            yield from (c.value for c in ast.walk(n)
                        if isinstance(c, ast.Constant) and isinstance(c.value, str) and id(c) not in inner)


def shows_markdown(cell):
    "Whether the saved output of a cell is Markdown"
    return any("text/markdown" in o.get("data", {}) for o in cell.outputs)


def findings(cells):
    "What is wrong with the chapter of findings"
    bad, here = [], [(cell, text) for titles, cell, text in chapters(cells) if is_findings(titles)]
    if not here: return bad
    for _, text in here:
        if text is None: continue
        if m := NUMBER.search(results_only(text)):
            bad.append(f"Findings: the number {m[0]!r} is typed: let code say it")
        if m := COMPARISON.search(plain(text)):
            bad.append(f"Findings: {m[0]!r} is typed: let code choose the sentence")
    made = [cell for cell, text in here if text is None and shows_markdown(cell)]
    if not made: bad.append("Findings: no code cell shows its sentences as Markdown")
    for cell in made:
        bad += [f"Findings: the code types {m[0]!r}: put it in from a value"
                for literal in typed_literals(cell.source) for m in TYPED.finditer(literal)]
    return bad


def comparisons(cells, allowed=()):
    "Sentences outside the findings that compare and hold a number, and nothing near them checks it"
    order, bad = chapters(cells), []
    for i, (titles, _, text) in enumerate(order):
        if text is None or is_findings(titles): continue
        near = [c.source for _, c, t in order[i + 1:] if t is None][:NEAR]
        if any(CHECKED.search(s) for s in near): continue
        for s in sentences(text):
            word, number = COMPARISON.search(s), NUMBER.search(NO_RESULT.sub(" ", s))
            if not word or not number or s.startswith(tuple(allowed)): continue
            bad.append(f"{word[0]!r} with a number, and no assert in the next {NEAR} code cells: {s[:110]}")
    return bad


def wording(cells):
    "Words that are said otherwise in this project"
    texts = [re.sub(r"\s+", " ", plain(cell.source)) for cell in cells if cell.kind == "markdown"]
    return [f"{m[0]!r}: {instead}" for text in texts for pattern, instead in WORDS.items()
            for m in re.finditer(pattern, text, re.I)]


def complaints(cells, allowed=()):
    "All that a page says and cannot keep, one sentence each"
    return findings(cells) + comparisons(cells, allowed) + wording(cells)


def pictures(cell): return sum("image/png" in o.get("data", {}) for o in cell.outputs)


def story(cells):
    "What a story page lacks: a picture soon, a length one can read, Findings, Limits and Next at its end"
    bad, prose = [], "\n".join(c.source for c in cells if c.kind == "markdown")
    h2 = re.findall(r"^## +(.*)$", prose, re.M)
    if not any(pictures(c) for c in cells[:10]): bad.append("no picture within the first ten cells")
    if not 6 <= (n := sum(map(pictures, cells))) <= 10: bad.append(f"{n} pictures instead of 6 to 10")
    words = len(plain(prose).split())
    if not 600 <= words <= 1200: bad.append(f"{words} words instead of 600 to 1,200")
    ends = [t for t in h2 if re.match(r"Findings|Limits|Next", t)]
    if [t.split()[0] for t in ends] != ["Findings", "Limits", "Next"] or ends != h2[-3:]:
        bad.append(f"it does not end in Findings, Limits, Next: {h2[-3:]}")
    if not any(t.startswith("Your CelebA") for t in h2): bad.append("no chapter 'Your CelebA'")
    return bad


def is_story(page): return bool(re.match(r"0\d", Path(page).name))


def main(names):
    count = 0
    for p in map(Path, names) if names else pages():
        cells = read(p)
        bad = complaints(cells, EXCEPTIONS.get(p.stem, ())) + (story(cells) if is_story(p) else [])
        count += len(bad)
        for b in bad: print(f"{p.stem}: {b}")
    print(f"{count} complaints")
    return bool(count)


if __name__ == "__main__": sys.exit(main(sys.argv[1:]))
