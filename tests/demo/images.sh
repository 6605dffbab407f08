#!/usr/bin/env bash
# Archives of both images, made of release builds without Docker; readable by
# `docker load`, `ctr images import` and `kind load image-archive`.
#   images.sh TAG DIRECTORY
set -euo pipefail
cd "$(dirname "$0")/../.."
tag=$1 directory=$2
target=${CARGO_TARGET_DIR:-target}
lab=${LAB:-cargo run --quiet --package tests --bin lab --}

cargo build --locked --release --package apiserver --package controller
mkdir -p "$directory"
for program in apiserver controller; do
  archive=$directory/steward-$program.tar
  # Made again only when the program or the tag is another one.
  stamp="$tag $(sha256sum < "$target/release/steward-$program")"
  if [ -f "$archive" ] && [ "$(cat "$archive.made" 2>/dev/null)" = "$stamp" ]; then
    continue
  fi
  $lab image build --ref "localhost/steward-$program:$tag" --user 65532:65532 \
    --entrypoint "/steward-$program" --file "$target/release/steward-$program=/steward-$program" \
    --output "$archive.new"
  mv "$archive.new" "$archive"
  echo "$stamp" > "$archive.made"
done
ls -sh "$directory"/*.tar
