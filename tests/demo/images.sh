#!/usr/bin/env bash
# Archives of both images, made without Docker; readable by
# `docker load`, `ctr images import` and `kind load image-archive`.
#   images.sh TAG DIRECTORY
# PROFILE=dev takes the build that the tests use, which saves minutes from cold.
set -euo pipefail
# Whoever runs it in a container is not who built it.
umask 022
cd "$(dirname "$0")/../.."
tag=$1 directory=$2
target=${CARGO_TARGET_DIR:-target}
lab=${LAB:-$target/debug/lab}

profile=${PROFILE:-release}
if [ "$profile" = dev ]; then
  # With dependencies as they are compiled for the lab and for tests.
  cargo build --locked --workspace --no-default-features --bin steward-apiserver --bin steward-controller
else
  cargo build --locked --profile "$profile" --package apiserver --package controller
fi
programs=$target/$([ "$profile" = dev ] && echo debug || echo "$profile")
mkdir -p "$directory"
for program in apiserver controller; do
  archive=$directory/steward-$program.tar
  # Made again only when the program or the tag is another one.
  stamp="$tag $(sha256sum < "$programs/steward-$program")"
  if [ -f "$archive" ] && [ "$(cat "$archive.made" 2>/dev/null)" = "$stamp" ]; then
    continue
  fi
  $lab image build --ref "localhost/steward-$program:$tag" --user 65532:65532 \
    --entrypoint "/steward-$program" --file "$programs/steward-$program=/steward-$program" \
    --output "$archive.new"
  mv "$archive.new" "$archive"
  echo "$stamp" > "$archive.made"
done
ls -sh "$directory"/*.tar
echo "their names: localhost/steward-apiserver:$tag localhost/steward-controller:$tag"
