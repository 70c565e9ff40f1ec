#!/usr/bin/env bash
# Takes the steps of the Dockerfile (the CPU's variant) in a temporary folder, without a container engine, then
# starts what they leave as the image would: as an unprivileged user, with the encoder's cache already filled, and
# nothing of the environment but what the image sets. Checks its health, has it do the whole job once (so that
# nothing that was taken out is missed), and checks that it stops on SIGTERM.
set -euo pipefail
cd "$(dirname "$0")/.."
examples=$PWD/examples/intents
user=65534 # nobody; the image's own user does not exist here
start_within_s=30

root=$(mktemp -d)
pid=
finish() {
  local status=$?
  [ -z "$pid" ] || kill -KILL "$pid" 2>/dev/null || true
  if [ "$status" -ne 0 ] && [ -f "$root/log" ]; then
    echo "--- the server said:" >&2
    tail -n 50 "$root/log" >&2
  fi
  rm -rf "$root"
}
trap finish EXIT
chmod 755 "$root"

# What runs a command as the image's user would.
as_user=(env -i "PATH=$root/opt/bin:/usr/bin:/bin" "HOME=$root/lib" "TMPDIR=$root/tmp"
  "GRAFT_STORE=$root/lib" "GRAFT_CACHE=$root/cache" GRAFT_DEVICE=auto "HF_HOME=$root/cache/huggingface")
if [ "$(id -u)" -eq 0 ]; then
  as_user=(setpriv --reuid "$user" --regid "$user" --clear-groups "${as_user[@]}")
else
  user=$(id -u)
fi

# The interpreter must be one that this user may run: not one in root's home.
for python in ${PYTHON:-python3 /usr/bin/python3 /usr/local/bin/python3}; do
  python=$("$python" -c 'import os, sys; print(os.path.realpath(sys.executable))' 2>/dev/null) || continue
  if "${as_user[@]}" "$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null &&
    "$python" -c 'import ensurepip' 2>/dev/null; then
    break
  fi
  python=
done
if [ -z "$python" ]; then
  echo "test-image: needs a Python 3.11 or newer, with venv, that every user may run" \
    "(Debian: apt-get install python3-venv); name it with PYTHON=..." >&2
  exit 1
fi
echo "test-image: with $python"

PYTHON=$python bash deploy/docker/install.sh "$root/opt" cpu
"$root/opt/bin/graft-server" prepare --cache "$root/cache"
bash deploy/docker/prune.sh "$root/opt" cpu
mkdir "$root/lib" "$root/tmp"
[ "$(id -u)" -ne 0 ] || chown -R "$user:$user" "$root/lib" "$root/tmp" "$root/cache"

start() {
  : >"$root/out" # there before it is read
  "${as_user[@]}" graft-server serve --listen 127.0.0.1:0 >"$root/out" 2>"$root/log" &
  pid=$!
  address=
  for ((tick = 0; tick < start_within_s * 10; tick++)); do
    address=$(sed -n 's/^listening on //p' "$root/out")
    [ -z "$address" ] || break
    kill -0 "$pid" 2>/dev/null || { echo "test-image: the server ended before it listened" >&2; exit 1; }
    sleep 0.1
  done
  [ -n "$address" ] || { echo "test-image: it did not listen within $start_within_s s" >&2; exit 1; }
  "${as_user[@]}" graft-server health --target "$address"
  echo "test-image: healthy on $address"
}

stop() {
  kill -TERM "$pid"
  wait "$pid" || { echo "test-image: it did not end cleanly on SIGTERM (exit status $?)" >&2; exit 1; }
  pid=
}

cd "$root"
echo "test-image: starting it as user $user"
start

graft() {
  "$root/opt/bin/graft" "$@"
}
export GRAFT_SERVER=$address
graft adapt image/intents "$examples/train.csv" --input text --label intent
graft evaluate image/intents "$examples/test.csv" --input text --label intent
graft predict image/intents "my bike has a flat tire"
graft export image/intents "$root/bundle"

stop
if "${as_user[@]}" graft-server health --target "$address" 2>/dev/null; then
  echo "test-image: health says SERVING where no server is" >&2
  exit 1
fi

if [ "$(id -u)" -eq 0 ]; then
  # As OpenShift starts images, on a cache that the user may not write.
  echo "test-image: starting it as user 12345 of group 0, without a home"
  mkdir -m 777 "$root/other"
  as_user=(setpriv --reuid 12345 --regid 0 --clear-groups env -i "PATH=$root/opt/bin:/usr/bin:/bin"
    "TMPDIR=$root/other" "GRAFT_STORE=$root/other/store" "GRAFT_CACHE=$root/cache")
  start
  stop
fi
echo "test-image: stopped; passed"
