#!/bin/sh
# Make a Python environment with the runtime from the wheels beside this script; no network is used.
#   sh install.sh [ENVIRONMENT]    default: the folder "environment" beside this script; PYTHON=... chooses the Python
set -eu

here=$(CDPATH='' cd -- "$(dirname -- "$0")" && pwd)
environment=${1:-"$here/environment"}
python=${PYTHON:-python3}

fail() {
    echo "install.sh: $1" >&2
    exit 1
}

command -v "$python" >/dev/null || fail "there is no $python; install Python @PYTHON@, or set PYTHON to its path"
found=$("$python" -c 'import os, sys; print("%d.%d" % sys.version_info[:2], os.uname().machine)')
[ "$found" = "@PYTHON@ @MACHINE@" ] ||
    fail "this bundle is for Python @PYTHON@ on @MACHINE@, but $python is of $found; set PYTHON to another, or bundle for this"
[ ! -e "$environment" ] || fail "$environment exists already; remove it, or name another folder"

(cd "$here" && sha256sum -c --quiet SHA256SUMS) || fail "files are damaged, see above; copy the bundle again"
"$python" -m venv "$environment" || fail "no environment could be made; Debian and Ubuntu have venv in python3-venv"
"$environment/bin/python" -m pip --isolated install --quiet --disable-pip-version-check --no-index \
    --find-links "$here/wheels" "bsexport-runtime==@RUNTIME@" || fail "the wheels could not be installed, see above"
echo "installed; try it: $environment/bin/python $here/smoke_test.py"
