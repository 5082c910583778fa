# shellcheck shell=bash
# Sourced by test.sh: a PostgreSQL server of the tests' own, on loopback, in a temporary folder.

# What as_postgres runs is never root: PostgreSQL refuses that.
as_postgres() {
  if [ "$(id -u)" = 0 ]; then
    setpriv --reuid=postgres --regid=postgres --clear-groups "$@"
  else
    "$@"
  fi
}

# Sets TANDEM_TEST_POSTGRES to its address; stop_postgres ends it.
start_postgres() {
  local programs port password=test-secret
  programs=$(find /usr/lib/postgresql -maxdepth 2 -name bin 2>/dev/null | sort -V | tail -n 1)
  [ -n "$programs" ] || fail "no PostgreSQL server under /usr/lib/postgresql: install postgresql"
  postgres_folder=$(mktemp -d /tmp/tandem-postgres.XXXXXX)
  [ "$(id -u)" = 0 ] && chown postgres "$postgres_folder"
  printf '%s\n' "$password" >"$postgres_folder/password"
  chmod 644 "$postgres_folder/password"
  port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
  step "making a database server for the tests in $postgres_folder" as_postgres \
    "$programs/initdb" -D "$postgres_folder/data" -U tandem -A scram-sha-256 \
    --pwfile="$postgres_folder/password" --no-sync -E UTF8 --locale=C
  # exec: the process that is ended later is the server itself.
  (
    set --
    [ "$(id -u)" = 0 ] && set -- setpriv --reuid=postgres --regid=postgres --clear-groups
    cd "$postgres_folder" || exit
    exec "$@" "$programs/postgres" -D "$postgres_folder/data" -k "$postgres_folder" -p "$port" \
      -c listen_addresses=127.0.0.1 -c fsync=off -c max_connections=200
  ) >"$postgres_folder/log" 2>&1 &
  postgres_process=$!
  local tries=0
  until "$programs/pg_isready" -q -h 127.0.0.1 -p "$port"; do
    kill -0 "$postgres_process" 2>/dev/null || fail "the database server ended: $(tail -n 1 "$postgres_folder/log")"
    [ $((tries += 1)) -le 300 ] || fail "the database server did not answer within 15 s"
    sleep 0.05
  done
  export TANDEM_TEST_POSTGRES="postgresql://tandem:$password@127.0.0.1:$port"
}

stop_postgres() {
  [ -n "${postgres_process:-}" ] || return 0
  kill -INT "$postgres_process" 2>/dev/null || true
  wait "$postgres_process" 2>/dev/null || true
  rm -rf "$postgres_folder"
}
