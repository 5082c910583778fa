#!/usr/bin/env bash
# ./run.sh        set-up, build, quickstart model, then the platform in the foreground
# ./run.sh ARGS   set-up and build, then `tandem ARGS`: ./run.sh version
set -euo pipefail
. "$(dirname "${BASH_SOURCE[0]}")/setup.sh"

install_packages "${build_packages[@]}"
build "$root/build" Release tandem
[ $# -gt 0 ] && exec "$root/build/tandem" "$@"

get_quickstart_model
port=${TANDEM_SERVER_PORT:-8000}
say "starting the platform at http://127.0.0.1:$port (Ctrl-C drains and ends it)
   when the line with \"ready\" is there, try in another terminal:
     1. build/tandem chat -m 'Tell me the capital of France.' --temperature 0
     2. curl http://127.0.0.1:$port/v1/chat/completions -H 'content-type: application/json' \\
          -d '{\"model\": \"${quickstart_file%.gguf}\", \"messages\": [{\"role\": \"user\", \"content\": \"Hello!\"}]}'
     3. the page at http://127.0.0.1:$port/, or: build/tandem status"
exec "$root/build/tandem" up --model "$quickstart_file"
