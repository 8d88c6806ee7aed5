"""README.md from nbs/index.ipynb: prose, code and saved outputs, without hidden cells. `--check` only compares."""
import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def outputs(cell):
    "A cell's saved outputs as Markdown: Markdown as it is, text indented; pictures are for the website"
    for o in cell.get("outputs", []):
        data = o.get("data", {"text/plain": o.get("text", "")})
        if "text/markdown" in data: yield "".join(data["text/markdown"]).strip()
        elif "text/plain" in data and "image/png" not in data: yield "```\n" + "".join(data["text/plain"]).strip("\n") + "\n```"


def readme():
    "The text of README.md"
    parts = ["<!-- made from nbs/index.ipynb by `make readme`: edit that -->"]
    for cell in json.loads((ROOT/"nbs/index.ipynb").read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"]).strip()
        if re.search(r"^#\|\s*hide\b", source, re.M): continue
        if cell["cell_type"] == "markdown": parts.append(source)
        elif cell["cell_type"] == "code" and source:
            code = re.sub(r"^#\|.*\n?", "", source, flags=re.M).strip()
            if code and not re.search(r"^#\|\s*echo:\s*false", source, re.M): parts.append(f"```python\n{code}\n```")
            parts += outputs(cell)
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    path = ROOT/"README.md"
    if "--check" in sys.argv: sys.exit(path.read_text(encoding="utf-8") != readme() and "README.md differs from nbs/index.ipynb: run `make readme`")
    path.write_text(readme(), encoding="utf-8")
