#!/usr/bin/env bash
# From nothing to cited answers: starts the embedded stack, posts samples/documents, asks over HTTP.
# `make demo` runs it; on its own it needs `ragcore` on the PATH. Safe to repeat: the second run
# finds the stack up and the documents unchanged. The stack is left running.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

say() { printf '\n== %s\n' "$*"; }

show() { # print a command as one would type it, and run it
  local word words=()
  for word; do
    if [[ $word == *[[:space:]]* ]]; then words+=("\"$word\""); else words+=("$word"); fi
  done
  printf '\n$ %s\n' "${words[*]}"
  "$@"
}

has_tesseract() {
  command -v tesseract >/dev/null && tesseract --list-langs 2>/dev/null | grep -qx rus
}

say "Starting PostgreSQL, Valkey, the API and a worker"
show ragcore up --detach

flags=()
if ! has_tesseract; then
  flags=(--without-scans)
  say "Leaving out the scanned page: reading it needs Tesseract with its Russian language pack"
  echo "Debian, Ubuntu: apt-get install tesseract-ocr tesseract-ocr-rus; then run this again."
fi
url=$(ragcore up --detach --json | python -c 'import json, sys; print(json.load(sys.stdin)["url"])')
python samples/demo.py "$url" "${flags[@]}"

cat <<'TXT'

== What to try next (commands live in .venv/bin; `source .venv/bin/activate` shortens them)

  ragcore ask "How much does a book of ten tickets cost?" --collection demo
  ragcore search "battery" --collection demo --explain
  ragcore ask "When does boarding close for cars?" --collection demo --json
  ragcore ingest YOUR-FILES
  ragcore doctor

docs/tutorial.md goes on from here. The stack is still running; this stops it:

  ragcore down
TXT
