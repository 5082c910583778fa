#!/usr/bin/env bash
# The set-up of run.sh, what the tests need besides, and every test. ./test.sh ARGS passes ARGS to
# ctest (./test.sh -R settings). TANDEM_BUILD: release (default), debug, asan or tsan.
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"
. "$root/tests/support/postgres.sh"

folder=$root/build
type=Release
case ${TANDEM_BUILD:-release} in
  release) ;;
  debug) type=Debug folder=$root/build-debug ;;
  asan) type=RelWithDebInfo folder=$root/build-asan TANDEM_SANITIZE=address,undefined ;;
  tsan) type=RelWithDebInfo folder=$root/build-tsan TANDEM_SANITIZE=thread ;;
  *) fail "TANDEM_BUILD=$TANDEM_BUILD: give release, debug, asan or tsan" ;;
esac

# The unmodified clients that users have, at fixed versions, in an environment of their own.
client_packages=("openai==3.54.0" "httpx==0.28.1" "safetensors==0.8.0" "numpy==2.4.6")
get_clients() {
  local venv=$root/build/venv
  [ "$(cat "$venv/clients" 2>/dev/null)" = "${client_packages[*]}" ] && return
  step "Python environment in $venv" python3 -m venv --clear "$venv"
  step "Python clients: ${client_packages[*]}" \
    "$venv/bin/python" -m pip install --disable-pip-version-check "${client_packages[@]}"
  printf '%s\n' "${client_packages[*]}" >"$venv/clients"
}

install_packages "${build_packages[@]}" "${test_packages[@]}"
get_quickstart_model
get_clients
build "$folder" "$type" all
trap stop_postgres EXIT
[ -n "${TANDEM_TEST_POSTGRES:-}" ] || start_postgres
say "running the tests in $folder"
ctest --test-dir "$folder" --output-on-failure -j "${TANDEM_TEST_JOBS:-2}" "$@"
