#!/usr/bin/env bash
# From nothing to cited answers: starts the embedded stack, reads samples/documents, asks.
# `make demo` runs it; on its own it needs `ragcore` on the PATH. Safe to repeat: the second run
# finds the stack up and the documents unchanged. The stack is left running.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

collection=demo
nothing_found=5 # the exit code of a question that the documents do not answer

say() { printf '\n== %s\n' "$*"; }

show() { # print a command as one would type it, and run it
  local word words=()
  for word; do
    if [[ $word == *[[:space:]]* ]]; then words+=("\"$word\""); else words+=("$word"); fi
  done
  printf '\n$ %s\n' "${words[*]}"
  "$@"
}

ask() {
  show ragcore ask "$1" --collection "$collection" || [[ $? -eq $nothing_found ]]
}

has_tesseract() {
  command -v tesseract >/dev/null && tesseract --list-langs 2>/dev/null | grep -qx rus
}

say "Starting PostgreSQL, Valkey, the API and a worker"
show ragcore up --detach

say "Reading the papers of Veresk Line, a ferry company that does not exist"
documents=(samples/documents)
if ! has_tesseract; then
  mapfile -t documents < <(ls -d samples/documents/* | grep -v скан)
  echo "Leaving out the scanned page: reading it needs Tesseract with its Russian language pack."
  echo "Debian, Ubuntu: apt-get install tesseract-ocr tesseract-ocr-rus; then run this again."
fi
show ragcore ingest "${documents[@]}" --collection "$collection"

say "Asking, in English and in Russian"
ask "How long does the crossing take aboard Kittiwake?"
ask "How many days are lost things kept?"
ask "При какой скорости ветра запрещён выход в рейс?"
ask "Чем посыпают трапы зимой?"
if has_tesseract; then
  ask "Какой причал закрыт на дноуглубительные работы?"
fi

say "And something that these papers do not say"
ask "What is the capital of Mongolia?"

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
