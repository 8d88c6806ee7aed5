"""Render the website without Quarto: nbdev's processed notebooks through smalldocs, then mended where the two differ.

python tools/site.py            # writes _docs/
python tools/site.py --check    # and says what is wrong with the markup that Quarto gets, and with these pages
"""

import base64
import json
import os
import re
import shutil
import subprocess
import sys
from functools import cache
from html import escape, unescape
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT / "_docs"


def process():
    "The notebooks as nbdev shows them and as Quarto gets them: hidden cells gone, signatures and links put in"
    from nbdev.quarto import refresh_quarto_yml
    from nbdev.serve import proc_nbs

    os.chdir(ROOT)
    refresh_quarto_yml()
    shutil.rmtree(ROOT / "_proc", ignore_errors=True)
    return Path(proc_nbs(n_workers=0))


def render(proc):
    "The processed notebooks as HTML in `_docs`"
    shutil.rmtree(proc / "_docs", ignore_errors=True)
    subprocess.run([sys.executable, "-m", "smalldocs.cli", "render", str(proc)], check=True)
    shutil.rmtree(OUT, ignore_errors=True)
    shutil.move(proc / "_docs", OUT)


# ---- repairs; the first five are what nbs/site.lua does on the way through Quarto


def fold(page):
    "Exported source folded under its signature, a click away"
    return re.sub(r'<details([^>]*?) open(?:="[^"]*")?([^>]*>\s*<summary>\s*Exported source)', r"<details\1\2", page)


def name_sources(page):
    "What stands folded is told by its name"

    def sub(m):
        code = unescape(re.sub(r"<[^>]+>", "", m["code"]))
        name = re.search(r"^(?:def|class) (\w+)", code, re.M)
        return m[0].replace(m["summary"], f"{m['summary']}: {name[1]}", 1) if name else m[0]

    return re.sub(
        r"(?P<summary><summary>\s*Exported source)\s*</summary>(?P<code>.*?)</details>", sub, page, flags=re.S
    )


def plain_signatures(page):
    "A signature is code, which holds no links"
    return re.sub(r"\[`([^`\]]+)`\]\(https?://[^)\s]*\)", r"`\1`", page)


def describe(page):
    "A picture without alternative text is described by its caption"

    def sub(m):
        text = re.sub(r"<[^>]+>", "", m["caption"]).strip()
        has = re.search(r'\balt="[^"]', m["img"])
        return m[0] if has else m[0].replace("<img", f'<img alt="{escape(unescape(text))}"', 1)

    return re.sub(
        r"(?P<img><img\b[^>]*>)(?P<between>[^<]*(?:</\w+>[^<]*)*)<figcaption[^>]*>(?P<caption>.*?)</figcaption>",
        sub,
        page,
        flags=re.S,
    )


KEEP = [(r"\bn = (?=\d)", "n\u00a0=\u00a0"), (r"(\([-−]?\d[\d.,]*) to (?=[-−]?\d)", "\\1\u00a0to\u00a0")]


def keep_together(page):
    "An interval, and 'n =' with its number, stay on one line"
    parts = re.split(
        r"(<pre\b.*?</pre>|<script\b.*?</script>|<style\b.*?</style>|<title>.*?</title>|<[^>]*>)", page, flags=re.S
    )
    for i in range(0, len(parts), 2):
        for pattern, text in KEEP:
            parts[i] = re.sub(pattern, text, parts[i])
    return "".join(parts)


def math_to_mathml(page):
    "TeX between its delimiters as MathML, which every browser shows without a script"
    from latex2mathml.converter import convert

    def sub(m):
        return convert(unescape(m["tex"]), display="block" if "display" in m["kind"] else "inline")

    page = re.sub(
        r'<span class="math (?P<kind>inline|display)">\\[(\[](?P<tex>.*?)\\[)\]]</span>', sub, page, flags=re.S
    )
    return re.sub(r"<(?:link|script)[^>]*katex[^>]*>(?:</script>)?", "", page)


def _lines(code):
    "Highlighted code as one element per line; a token over several lines is closed and opened again"
    open_tags, lines = [], []
    for line in code.rstrip("\n").split("\n"):
        before = "".join(open_tags)
        for tag in re.findall(r"<span\b[^>]*>|</span>", line):
            if tag == "</span>":
                open_tags.pop()
            else:
                open_tags.append(tag)
        lines.append(f"<span>{before}{line}{'</span>' * len(open_tags)}</span>")
    return "\n".join(lines)


def wrap_lines(page):
    "Each line of code in an element of its own, as Pandoc does it: so a wrapped line can keep its indentation"
    return re.sub(
        r'(<pre class="sourceCode[^>]*><code[^>]*>)(.*?)(</code></pre>)',
        lambda m: m[1] + _lines(m[2]) + m[3],
        page,
        flags=re.S,
    )


def pictures(page, path):
    "Pictures as files beside the page; each opens in full size"
    folder = path.with_name(path.stem + "_files")

    def sub(m):
        folder.mkdir(exist_ok=True)
        name = f"figure-{len(list(folder.iterdir()))}.{m['kind']}"
        (folder / name).write_bytes(base64.b64decode(m["data"]))
        img = m[0].replace(m["src"], f"{folder.name}/{name}")
        return f'<a class="large" href="{folder.name}/{name}">{img}</a>'

    return re.sub(r'<img\b[^>]*src="(?P<src>data:image/(?P<kind>\w+);base64,(?P<data>[^"]*))"[^>]*>', sub, page)


@cache
def _addresses():
    from nbdev.config import get_config

    cfg = get_config()
    return re.escape(cfg.doc_host.rstrip("/") + "/" + cfg.doc_baseurl.strip("/") + "/"), re.escape(cfg.git_url)


def local_links(page, up):
    "nbdev links to where the site will be published; here the pages are beside each other"
    host, repository = _addresses()
    page = re.sub(r'<a href="' + repository + r'[^"]*"[^>]*>source</a>', "", page)
    return re.sub(r'(<a\b[^>]*href=")' + host, rf"\1{up}", page)


def mend(page, path):
    "One page with all repairs"
    page = keep_together(describe(name_sources(fold(plain_signatures(math_to_mathml(page))))))
    return local_links(pictures(wrap_lines(page), path), "../" * (len(path.relative_to(OUT).parts) - 1))


def repair():
    "All pages mended, and named without their number, as Quarto and nbdev name them"
    pages = list(OUT.rglob("*.html"))
    names = {p.name: re.sub(r"^\d+[a-z]?_", "", p.name) for p in pages}
    numbered = {old: new for old, new in names.items() if old != new}
    pattern = re.compile("|".join(map(re.escape, numbered)) or r"(?!)")
    for p in [*pages, *OUT.rglob("search.json"), *OUT.rglob("sitemap.xml"), *OUT.rglob("*.md"), *OUT.rglob("llms.txt")]:
        text = pattern.sub(lambda m: numbered[m[0]], p.read_text(encoding="utf-8"))
        to = p.with_name(numbered.get(p.name, p.name))
        p.write_text(mend(text, to) if p.suffix == ".html" else plain_signatures(text), encoding="utf-8")
        if to != p:
            p.rename(to)
    return sorted(OUT.rglob("*.html"))


# ---- what is wrong with the pages rendered here


class _Page(HTMLParser):
    "What a page links to, the anchors it has, its text outside code, its pictures and what is unfolded"

    def __init__(self, text):
        super().__init__()
        self.links, self.ids, self.text, self.bare = [], set(), [], []
        self._code = self.errors = self.unfolded = 0
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        a = dict(attrs)
        if tag in ("pre", "code", "script", "style", "math"):
            self._code += 1
        if a.get("id"):
            self.ids.add(a["id"])
        if tag == "a" and a.get("name"):
            self.ids.add(a["name"])
        link = a.get("href") if tag in ("a", "link") else a.get("src") if tag in ("img", "script") else None
        if link:
            self.links.append(link)
        if tag == "img" and not (a.get("alt") or "").strip():
            self.bare.append((a.get("src") or "")[:80])
        if tag == "details" and "code-fold" in (a.get("class") or "") and "open" in a:
            self.unfolded += 1
        if "cell-output-error" in (a.get("class") or ""):
            self.errors += 1

    def handle_endtag(self, tag):
        if tag in ("pre", "code", "script", "style", "math"):
            self._code = max(0, self._code - 1)

    def handle_data(self, data):
        if not self._code:
            self.text.append(data)


UNRENDERED = [
    (r"(?<!\w)@(?:fig|tbl|sec|eq)-[\w-]+", "an unrendered cross reference"),
    (r"^:::", "an unrendered block"),
    (r"\\\(|\\\[|\$\$", "unrendered maths"),
    (r"\{\{<", "an unrendered shortcode"),
    (r"\[[^\]\n]{1,80}\]\([^)\n]{1,200}\)", "an unrendered link"),
    (r"\]\(https?://", "an unrendered link"),
]
LOCAL = re.compile(r"(?:/(?:tmp|root|home)/|" + re.escape(str(ROOT.parent)) + r"/)[\w./-]*")


def _wrong_link(link, p, pages):
    "Why a link of page `p` does not work, or `None`"
    u = urlsplit(link)
    if u.scheme or u.netloc or link.startswith(("data:", "#!")):
        return None
    target = (p.parent / unquote(u.path)).resolve() if u.path else p
    if u.path.startswith("/"):
        return "is absolute"
    if not target.exists():
        return "leads nowhere"
    if u.fragment and target in pages and unquote(u.fragment) not in pages[target].ids:
        return "has no such anchor"


def check_html():
    "What is wrong with the rendered pages, one sentence each; and how many pages there are"
    raw = {p: p.read_text(encoding="utf-8") for p in OUT.rglob("*.html")}
    pages = {p: _Page(text) for p, text in raw.items()}
    bad = [] if len(pages) > 5 else [f"only {len(pages)} pages were rendered"]
    for p, page in pages.items():
        name, text = p.relative_to(OUT), "".join(page.text)
        bad += [f"{name}: {link} {why}" for link in page.links if (why := _wrong_link(link, p, pages))]
        bad += [f"{name}: {what}: {m[0]!r}" for pat, what in UNRENDERED for m in re.finditer(pat, text, re.M)]
        bad += [f"{name}: a link inside code: {m[0]!r}" for m in re.finditer(r"\[`[^`\]]+`\]\(http[^)]*\)", raw[p])]
        bad += [f"{name}: no alternative text: {src}" for src in page.bare]
        bad += [f"{name}: exported source is not folded"] * bool(page.unfolded)
        bad += [f"{name}: shows an error"] * page.errors
        bad += [f"{name}: names a local path: {m[0]!r}" for m in LOCAL.finditer(raw[p])]
    return sorted(set(bad)), len(pages)


# ---- what is wrong with the processed notebooks, which is what Quarto gets

WIDE = 120  # columns


def _texts(cell):
    "The Markdown texts of a cell: its own, or those among its outputs"
    if cell["cell_type"] == "markdown":
        yield "".join(cell["source"])
    for o in cell.get("outputs", []):
        if "text/markdown" in o.get("data", {}):
            yield "".join(o["data"]["text/markdown"])


def _wrong_text(text):
    "Links that Quarto cannot render: in code, in a cell of a table, inside another link"
    fence = False
    for line in text.splitlines():
        if line.startswith("```"):
            fence = not fence
        where = "code" if fence else "a table" if line.startswith("|") else ""
        found = re.search(r"\[`([^`\]]+)`\]\(https?://", line)
        if where and found:
            yield f"`{found[1]}` becomes a link inside {where}: no backticks there around an exported name"
        if re.search(r"\[[^\]]*\[`[^\]]*`\]\(", line):
            yield f"a link inside a link, write it without backticks: {line[:100]!r}"


def _options(source):
    "The `#|` options of a cell by name"
    return dict(re.findall(r"^#\|[ \t]*([\w-]+)[ \t]*:?[ \t]*(.*)$", source, re.M))


def _wrong_code(cell):
    "Pictures that nobody describes, lines that cannot be shown whole, source that is not folded"
    source = "".join(cell["source"])
    options = _options(source)
    shown = options.get("echo") != "false"
    drawn = any(k.startswith("image/") for o in cell.get("outputs", []) for k in o.get("data", {}))
    if drawn and not options.get("fig-alt"):
        yield f"a picture without fig-alt: {source[:80]!r}"
    yield from (
        f"an option that is no YAML, so all options of the cell are lost (quote it): {name}: {text[:80]!r}"
        for name, text in options.items()
        if re.search(r"^[^'\"\[{].*(: | #)|^[&*!|>%@`]", text)
    )
    if shown:
        yield from (
            f"a line of {len(line)} columns: {line[:80]!r}"
            for line in source.splitlines()
            if len(line) > WIDE and not line.startswith("#|")
        )
    if "exports" in options and "code-fold" not in options:
        yield f"exported source that is not folded: {source[:80]!r}"


def _wrong_sidebar(config, pages):
    "Pages that no reader finds, and entries that lead nowhere"
    listed = re.findall(r"^\s*- ([\w/]+\.ipynb)\s*$", config, re.M)
    yield from (f"_quarto.yml: the sidebar lacks {p}" for p in sorted(pages - set(listed)))
    yield from (f"_quarto.yml: the sidebar names {p}, which is not there" for p in sorted(set(listed) - pages))
    yield from (f"_quarto.yml: the sidebar names {p} twice" for p in sorted({p for p in listed if listed.count(p) > 1}))


def check_notebooks(proc):
    "What Quarto would render wrongly, one sentence each"
    bad = []
    for p in sorted(proc.rglob("*.ipynb")):
        for cell in json.loads(p.read_text(encoding="utf-8"))["cells"]:
            wrong = [w for text in _texts(cell) for w in _wrong_text(text)]
            if cell["cell_type"] == "code" and not "".join(cell["source"]).startswith(
                ("#| echo: false\n#| output: asis\nshow_doc", "#| output: asis")
            ):
                wrong += _wrong_code(cell)
            bad += [f"{p.relative_to(proc)}: {w}" for w in wrong]
    config = (proc / "_quarto.yml").read_text(encoding="utf-8")
    pages = {p.relative_to(proc).as_posix() for p in proc.rglob("*.ipynb")}
    bad += _wrong_sidebar(config, pages)
    bad += [
        f"_quarto.yml does not name {f}"
        for f in ("site.lua", "nbdev.yml", "styles.css")
        if f not in config or not (proc / f).exists()
    ]
    return bad


if __name__ == "__main__":
    proc = process()
    wrong = check_notebooks(proc)
    render(proc)
    print(f"{len(repair())} pages in {OUT.name}/")
    if "--check" in sys.argv:
        more, n = check_html()
        bad = wrong + more
        print(
            "\n".join(bad)
            if bad
            else f"{n} pages: no broken link, no unrendered reference, nothing that Quarto would render wrongly"
        )
        sys.exit(bool(bad))
