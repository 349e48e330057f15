# shellcheck shell=sh
# Sourced by ./demo and ./test from the root of the tree: makes the tree ready to run, once.
#
#   set_up            Debian packages by name, .venv with the locked requirements, carpool in place
#   is_root           this shell may ask apt
#   missing_packages  the names of PACKAGES that dpkg does not have
#
# A second run asks neither apt nor the network: dpkg is asked on this machine, and a stamp in .venv
# names what it was made from. POSIX sh only (dash); a variable PYTHON names another interpreter.

# What each is for: the interpreter; the hands and the lab (ip, tc, nft, libnftables, unshare); the
# build of the BPF object (clang, bpf_helpers.h, linux/bpf.h); ucarp, ping and sysctl for the lab.
PACKAGES="python3 python3-venv
iproute2 nftables libnftables1 util-linux
clang libbpf-dev linux-libc-dev
ucarp iputils-ping procps"

STAMP=.venv/carpool-stamp

# ip, tc and nft live where an ordinary user's PATH does not look.
PATH=$PATH:/usr/sbin:/sbin
export PATH

say() { printf '%s\n' "carpool: $*"; }

die() {
    printf '%s\n' "carpool: $*" >&2
    exit 1
}

is_root() { [ "$(id -u)" -eq 0 ]; }

missing_packages() {
    for package in $PACKAGES; do
        status=$(dpkg-query --show --showformat '${db:Status-Status}' "$package" 2>/dev/null) || :
        [ "$status" = installed ] || printf '%s ' "$package"
    done
}

install_packages() {
    if ! command -v dpkg-query >/dev/null; then
        # shellcheck disable=SC2086  # one line
        say "this is no Debian: taking for granted what these Debian packages hold:" $PACKAGES
        return
    fi
    missing=$(missing_packages)
    [ -n "$missing" ] || return 0
    is_root || die "packages are missing; as root: apt-get install --no-install-recommends $missing"
    say "installing from apt: $missing"
    export DEBIAN_FRONTEND=noninteractive
    apt-get update --quiet=2 </dev/null || say "apt-get update failed; trying the lists at hand"
    # shellcheck disable=SC2086  # one word a package
    apt-get install --yes --quiet=2 --no-install-recommends $missing </dev/null \
        || die "apt-get could not install: $missing"
}

# Prints a Python >= 3.11 that can make a virtual environment. The system's own goes first: apt has
# just seen to it.
find_python() {
    for candidate in ${PYTHON:-/usr/bin/python3 python3 python3.13 python3.12 python3.11}; do
        if "$candidate" -c 'import sys, ensurepip, venv; sys.exit(sys.version_info < (3, 11))' \
            2>/dev/null; then
            printf '%s\n' "$candidate"
            return 0
        fi
    done
    return 1
}

# What .venv is made from. The tree's own path is part of it: an environment cannot be moved.
fingerprint() {
    {
        pwd
        cat requirements-dev.txt pyproject.toml packaging/setup.sh
    } | sha256sum | cut -d ' ' -f 1
}

# What the BPF objects are built from.
bpf_fingerprint() {
    cat packaging/hatch_build.py src/carpool/drivers/bpf/*.[ch] | sha256sum | cut -d ' ' -f 1
}

make_environment() {
    python=$(find_python) || die "needs Python 3.11 or newer with its venv module; none was found" \
        "(Debian 12: apt-get install python3 python3-venv)"
    if ! .venv/bin/python -m pip --version >/dev/null 2>&1 \
        || ! head -n 3 .venv/bin/pip 2>/dev/null | grep -qF "$(pwd)/.venv/"; then
        say "making .venv with $python"
        "$python" -m venv --clear .venv || die "$python could not make .venv"
    fi
    say "installing the locked requirements into .venv"
    pip="env PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_ROOT_USER_ACTION=ignore .venv/bin/python -m pip"
    $pip install --quiet --no-input --require-hashes --requirement requirements-dev.txt </dev/null \
        || die "pip could not install requirements-dev.txt"
    $pip install --quiet --no-input --no-deps --no-build-isolation --editable . </dev/null \
        || die "pip could not install carpool itself"
}

set_up() {
    install_packages
    wanted="$(fingerprint) $(bpf_fingerprint)"
    present=$(cat "$STAMP" 2>/dev/null) || present=
    # The BPF objects are not in git: a cleaned tree has to build them again.
    if ! ls src/carpool/drivers/bpf/*.bin >/dev/null 2>&1; then
        present="${present%% *} none"
    fi
    [ "$wanted" != "$present" ] || return 0
    if [ "${wanted%% *}" != "${present%% *}" ]; then
        make_environment
    else
        say "building the BPF objects"
        .venv/bin/python packaging/hatch_build.py || die "the BPF objects could not be built"
    fi
    printf '%s\n' "$wanted" >"$STAMP"
}
