"The website builds, and nothing on it is broken."
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def test_site_builds_without_a_broken_link():
    r = subprocess.run([sys.executable, "tools/site.py", "--check"], cwd=ROOT, capture_output=True, text=True)
    assert r.returncode == 0, (r.stdout + r.stderr)[-6000:]
    assert "no broken link" in r.stdout
