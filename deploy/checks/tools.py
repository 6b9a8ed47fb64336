"""Installs the programs and packages that the checks need, in ${XDG_CACHE_HOME:-~/.cache}/netagg/tools or as Debian packages."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TOOLS = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "netagg/tools"


def run(*command, **options):
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, **options)


def die(message):
    sys.exit(f"deploy/checks/{Path(sys.argv[0]).name}: {message}")


def build_with_go(module, remedy):
    """Builds a program, and returns its path. `remedy` tells the user how to install it."""
    name = module.split("@")[0].rsplit("/", 1)[1]
    if not shutil.which("go"):
        die(f"{name} is missing, and Go, which would build it, is missing too. {remedy}")
    print(f"building {module} in {TOOLS}, which may take some minutes", flush=True)
    built = run("nice", "go", "install", module, env={**os.environ, "GOBIN": str(TOOLS / "bin")}, cwd=Path.home())
    if built.returncode:
        die(f"{name} is missing, and `go install {module}` failed. {remedy}\n{built.stderr}")
    return TOOLS / "bin" / name


def install_with_pip(wanted, folder):
    """Makes a virtual environment with the package `wanted` in `folder`."""
    print(f"installing {wanted} in {TOOLS}", flush=True)
    for command in [
        [sys.executable, "-m", "venv", "--clear", folder],
        [folder / "bin/python3", "-m", "pip", "install", "-q", wanted],
    ]:
        done = run(*command)
        if done.returncode:
            die(f"the Python package could not be installed. Run: pip install {wanted}\n{done.stdout}{done.stderr}")


def need_of_debian(program, service, package):
    """Ends the check if `program` is missing. On Debian as root, `deploy/native/install SERVICE` first installs it."""
    if not shutil.which(program) and os.geteuid() == 0 and shutil.which("apt-get"):
        subprocess.run([ROOT / "deploy/native/install", service], check=True)
    if not shutil.which(program):
        die(f"{program} is missing. It is in the Debian package {package}: sudo apt-get install {package}")
