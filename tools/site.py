"""Render the website without Quarto: nbdev's processed notebooks through smalldocs, then repair what the two disagree about.

    python tools/site.py            # writes _docs/
    python tools/site.py --check    # and fails on a broken link, an unrendered reference or a local path
"""
import os
import re
import shutil
import subprocess
import sys
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).resolve().parent.parent
OUT = ROOT/"_docs"


def process():
    "The notebooks as nbdev shows them: hidden cells gone, signatures and links put in"
    from nbdev.serve import proc_nbs
    os.chdir(ROOT)
    shutil.rmtree(ROOT/"_proc", ignore_errors=True)
    return Path(proc_nbs(n_workers=0))


def render(proc):
    "The processed notebooks as HTML in `_docs`"
    shutil.rmtree(proc/"_docs", ignore_errors=True)
    subprocess.run([sys.executable, "-m", "smalldocs.cli", "render", str(proc)], check=True)
    shutil.rmtree(OUT, ignore_errors=True)
    shutil.move(proc/"_docs", OUT)


def math_to_mathml(page):
    "TeX between its delimiters as MathML, which every browser shows without a script"
    from latex2mathml.converter import convert

    def sub(m): return convert(unescape(m["tex"]), display="block" if "display" in m["kind"] else "inline")
    page = re.sub(r'<span class="math (?P<kind>inline|display)">\\[(\[](?P<tex>.*?)\\[)\]]</span>', sub, page, flags=re.S)
    return re.sub(r'<(?:link|script)[^>]*katex[^>]*>(?:</script>)?', "", page)


def fold(page):
    "Exported source folded under its signature, a click away"
    return re.sub(r'<details([^>]*?) open(?:="[^"]*")?([^>]*>\s*<summary>\s*Exported source)', r"<details\1\2", page)


def local_links(page, up):
    "nbdev links to where the site will be published; here the pages are beside each other, and a signature is code, which holds no links"
    from nbdev.config import get_config
    cfg = get_config()
    host = re.escape(cfg.doc_host.rstrip("/") + "/" + cfg.doc_baseurl.strip("/") + "/")
    page = re.sub(r"\[`([^`\]]+)`\]\(" + host + r"[^)]*\)", r"`\1`", page)
    page = re.sub(r'<a href="' + re.escape(cfg.git_url) + r'[^"]*"[^>]*>source</a>', "", page)
    return re.sub(r'href="' + host, f'href="{up}', page)


def repair():
    "Page names without their number, as Quarto and nbdev name them; maths as MathML; source folded"
    pages = list(OUT.rglob("*.html"))
    names = {p.name: re.sub(r"^\d+[a-z]?_", "", p.name) for p in pages}
    numbered = {old: new for old, new in names.items() if old != new}
    pattern = re.compile("|".join(map(re.escape, numbered)) or r"(?!)")
    for p in [*pages, *OUT.rglob("search.json"), *OUT.rglob("sitemap.xml"), *OUT.rglob("*.md"), *OUT.rglob("llms.txt")]:
        text = pattern.sub(lambda m: numbered[m[0]], p.read_text(encoding="utf-8"))
        if p.suffix == ".html": text = local_links(fold(math_to_mathml(text)), "../"*(len(p.relative_to(OUT).parts) - 1))
        p.write_text(text, encoding="utf-8")
    for p in pages:
        if p.name in numbered: p.rename(p.with_name(numbered[p.name]))
    return sorted(OUT.rglob("*.html"))


class _Page(HTMLParser):
    "What a page links to, the anchors it has, and its text outside code"
    def __init__(self, text):
        super().__init__()
        self.links, self.ids, self.text, self._code, self.images, self.errors = [], set(), [], 0, 0, 0
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        a = dict(attrs)
        if tag in ("pre", "code", "script", "style", "math"): self._code += 1
        if a.get("id"): self.ids.add(a["id"])
        if tag == "a" and a.get("name"): self.ids.add(a["name"])
        link = a.get("href") if tag in ("a", "link") else a.get("src") if tag in ("img", "script") else None
        if link: self.links.append(link)
        if "cell-output-error" in (a.get("class") or ""): self.errors += 1

    def handle_endtag(self, tag):
        if tag in ("pre", "code", "script", "style", "math"): self._code = max(0, self._code - 1)

    def handle_data(self, data):
        if not self._code: self.text.append(data)


UNRENDERED = [(r"(?<!\w)@(?:fig|tbl|sec|eq)-[\w-]+", "an unrendered cross reference"), (r"^:::", "an unrendered block"),
              (r"\\\(|\\\[|\$\$", "unrendered maths"), (r"\{\{<", "an unrendered shortcode"), (r"\[[^\]\n]{1,80}\]\([^)\n]{1,200}\)", "an unrendered link")]


def check():
    "What is wrong with the rendered site, one sentence each"
    pages = {p: _Page(p.read_text(encoding="utf-8")) for p in OUT.rglob("*.html")}
    bad = [] if len(pages) > 5 else [f"only {len(pages)} pages were rendered"]
    for p, page in pages.items():
        name, text = p.relative_to(OUT), "".join(page.text)
        for link in page.links:
            u = urlsplit(link)
            if u.scheme or u.netloc or link.startswith(("data:", "#!")): continue
            target = (p.parent/unquote(u.path)).resolve() if u.path else p
            if u.path.startswith("/"): bad.append(f"{name}: {link} is absolute")
            elif not target.exists(): bad.append(f"{name}: {link} leads nowhere")
            elif u.fragment and target in pages and unquote(u.fragment) not in pages[target].ids: bad.append(f"{name}: {link} has no such anchor")
        bad += [f"{name}: {what}: {m[0]!r}" for pat, what in UNRENDERED for m in re.finditer(pat, text, re.M)]
        bad += [f"{name}: a link inside code: {m[0]!r}" for m in re.finditer(r"\[`[^`\]]+`\]\(http[^)]*\)", p.read_text(encoding="utf-8"))]
        bad += [f"{name}: shows an error"]*page.errors
        raw = p.read_text(encoding="utf-8")
        bad += [f"{name}: names a local path: {m[0]!r}" for m in re.finditer(r"(?:/(?:tmp|root|home)/|" + re.escape(str(ROOT.parent)) + r"/)[\w./-]*", raw)]
    return sorted(set(bad)), len(pages)


if __name__ == "__main__":
    render(process())
    pages = repair()
    print(f"{len(pages)} pages in {OUT.name}/")
    if "--check" in sys.argv:
        bad, n = check()
        print("\n".join(bad) if bad else f"{n} pages: no broken link, no unrendered reference")
        sys.exit(bool(bad))
