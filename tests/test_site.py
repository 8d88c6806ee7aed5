"The website builds, nothing on it is broken, and Quarto gets nothing that it would render wrongly."

import configparser
import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def site():
    "tools/site.py as a module (its name is one of Python's own)"
    spec = importlib.util.spec_from_file_location("facerec_site", ROOT / "tools/site.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_site_builds_without_a_broken_link():
    r = subprocess.run([sys.executable, "tools/site.py", "--check"], cwd=ROOT, capture_output=True, text=True)
    assert r.returncode == 0, (r.stdout + r.stderr)[-6000:]
    assert "no broken link" in r.stdout


LINK = "[`metric`](https://example.org/parts/records.html#metric)"


def test_what_one_renderer_leaves_is_repaired(site):
    assert site.plain_signatures(f"m, # from {LINK}s") == "m, # from `metric`s"
    assert " open" not in site.fold('<details open class="code-fold">\n<summary>Exported source</summary>')
    source = (
        "<details><summary>\nExported source</summary><code><span>@x</span>\n<b>def</b> <i>_f</i>(a)</code></details>"
    )
    assert "Exported source: _f</summary>" in site.name_sources(source)
    assert site.name_sources(source.replace("def", "x =")) == source.replace("def", "x =")
    assert 'alt="n &lt; 3"' in site.describe('<img src="a.png"></p>\n<figcaption>n &lt; 3</figcaption>')
    assert 'alt="own"' in site.describe('<img alt="own" src="a.png"></p>\n<figcaption>not this</figcaption>')
    assert (
        site.keep_together("<td>0.9 (-0.1 to 1.0, n = 14)</td>")
        == "<td>0.9 (-0.1\u00a0to\u00a01.0, n\u00a0=\u00a014)</td>"
    )
    assert site.keep_together("<pre>n = 14</pre>from 3 to 4") == "<pre>n = 14</pre>from 3 to 4"


def test_every_line_of_code_is_an_element(site):
    token = '<span class="st">"a\nb"</span>'
    page = site.wrap_lines(
        f'<pre class="sourceCode python"><code class="sourceCode python">x = {token}\n\ny</code></pre>'
    )
    first, second, empty, last = page.split("\n")
    assert first.endswith('<span>x = <span class="st">"a</span></span>')
    assert second == '<span><span class="st">b"</span></span>'
    assert empty == "<span></span>" and last == "<span>y</span></code></pre>"


def code(source, *outputs):
    return dict(cell_type="code", source=source, outputs=[dict(data=data) for data in outputs])


def test_what_quarto_would_render_wrongly_is_found(site):
    assert not list(site._wrong_text(f"A sentence about {LINK}."))
    assert "inside code" in list(site._wrong_text(f"```python\nm, # {LINK}\n```"))[0]
    assert "inside a table" in list(site._wrong_text(f"| a | {LINK} |"))[0]
    assert "a link inside a link" in list(site._wrong_text(f"see [{LINK}](records.ipynb)"))[0]
    assert "without fig-alt" in list(site._wrong_code(code("plot()", {"image/png": ""})))[0]
    assert not list(site._wrong_code(code("#| fig-alt: a curve\nplot()", {"image/png": ""})))
    assert "no YAML" in list(site._wrong_code(code("#| fig-alt: two curves: one rises\nplot()")))[0]
    assert not list(site._wrong_code(code('#| fig-alt: "two curves: one rises"\nplot()')))
    assert "130 columns" in list(site._wrong_code(code("x" * 130)))[0]
    assert not list(site._wrong_code(code("#| echo: false\n" + "x" * 130)))
    assert "not folded" in list(site._wrong_code(code("#| exports\ndef f(): pass")))[0]


def test_a_page_that_the_sidebar_lacks_is_found(site):
    config = "\n".join(f"      - {p}.ipynb" for p in ("index", "core/files", "core/old", "index"))
    wrong = list(site._wrong_sidebar(config, {"index.ipynb", "core/files.ipynb", "core/plots.ipynb"}))
    assert len(wrong) == 3 and "lacks core/plots" in wrong[0]
    assert "core/old.ipynb, which" in wrong[1] and "index.ipynb twice" in wrong[2]


def test_the_filter_for_quarto_does_the_same(site, tmp_path):
    "With Pandoc at hand (it comes with Quarto) the filter is tried, otherwise this case is skipped"
    pandoc = shutil.which("pandoc") or pytest.skip("no pandoc here")
    page = tmp_path / "page.md"
    page.write_text(
        "![A curve](a.png)\n\n0.9 (0.8 to 1.0, n = 14)\n\n"
        f'``` {{.python .cell-code code-fold="show" code-summary="Exported source"}}\n@x\ndef f(): m # {LINK}\n```\n',
        encoding="utf-8",
    )
    html = subprocess.run(
        [pandoc, "-t", "html", "-L", str(ROOT / "nbs/site.lua"), str(page)], capture_output=True, text=True, check=True
    ).stdout
    assert 'alt="A curve"' in html and 'code-fold="true"' in html and "`metric`" in html and "example.org" not in html
    assert "Exported source: f" in html
    assert "(0.8\u00a0to\u00a01.0, n\u00a0=\u00a014)" in html


def test_nbdev_leaves_the_readme_alone():
    "`nbdev_docs` would write README.md from the page that readme_nb names; there is none of that name"
    cfg = configparser.ConfigParser()
    cfg.read(ROOT / "settings.ini")
    assert not (ROOT / "nbs" / cfg["DEFAULT"]["readme_nb"]).exists()
