#!/bin/sh
# The demo behind `make demo`: starts Pawl with directories, ports and pod
# addresses of its own, pushes examples/hello, asks it for an answer, and waits.
# Ctrl-C stops and removes everything again.
#
#   examples/demo.sh         the demo; with DEMO_ONCE=1 it ends after the answer
#   examples/demo.sh clean   remove what a killed demo left
set -eu
cd "$(dirname "$0")/.."
demo=$PWD/.pawl/demo
cidr=10.214.0.0/24
export XDG_CONFIG_HOME="$demo/config" # not yours: your own contexts stay as they are
export GIT_AUTHOR_NAME=Demo GIT_AUTHOR_EMAIL=demo@example.org
export GIT_COMMITTER_NAME=Demo GIT_COMMITTER_EMAIL=demo@example.org

say() { printf '\n== %s\n' "$*"; }

fail() {
	printf '\ndemo: %s\n' "$*" >&2
	[ ! -s "$demo/pawld.log" ] || { echo "pawld's last words:" && tail -n 25 "$demo/pawld.log"; } >&2
	exit 1
}

# free_port FROM: the first port from there on that no socket of this machine has.
free_port() {
	awk -v from="$1" '
		FNR > 1 { split($2, a, ":"); used[a[2]] = 1 }
		END { while (sprintf("%04X", from) in used) from++; print from }
	' /proc/net/tcp /proc/net/tcp6
}

# remove stops the daemon, if it runs, and removes all that it made. It runs in a
# session of its own, so that a second Ctrl-C does not stop it half-way.
remove() {
	if [ -d "$demo/data" ]; then
		setsid --wait bin/pawld down --data "$demo/data" --run "$demo/run" --pod-cidr $cidr --purge >"$demo/down.log" 2>&1 ||
			{ cat "$demo/down.log" >&2; echo "demo: not everything could be removed; what is left is known in $demo" >&2; return 1; }
	fi
	rm -rf "$demo"
	rmdir .pawl 2>/dev/null || true # your own instance of make run may be there
}

finish() {
	code=$?
	trap '' INT TERM
	trap - EXIT
	say "stopping, and removing everything the demo made"
	remove || code=1
	exit "$code"
}

# until_ready SECONDS WHAT COMMAND...: repeats the command until it succeeds.
until_ready() {
	left=$(($1 * 5)) what=$2
	shift 2
	printf '   %s ' "$what"
	until "$@"; do
		kill -0 "$pawld" 2>/dev/null || fail "pawld has ended"
		[ $((left -= 1)) -gt 0 ] || fail "$what: it takes too long"
		printf .
		sleep 0.2
	done
	echo ' yes'
}

up() { curl -fs -o /dev/null "$1"; }

# The state of every pod is one readable value in the store, so that is where
# the demo reads the address of one that is ready.
address() {
	for key in $(bin/tools/nats --context pawl kv ls pawl-actual 2>/dev/null | grep -o 'pods\.default\.hello-[^ ]*'); do
		pod=$(bin/tools/nats --context pawl kv get pawl-actual "$key" --raw 2>/dev/null) || continue
		ip=$(echo "$pod" | tr -d ' \n' | grep '"type":"Ready"[^}]*"status":"True"' | sed -n 's/.*"podIP":"\([^"]*\)".*/\1/p')
		[ -z "$ip" ] || return 0
	done
	return 1
}

if [ "$(cat "$demo/pid" 2>/dev/null)" ] && kill -0 "$(cat "$demo/pid")" 2>/dev/null; then
	echo "demo: one is already running here (pid $(cat "$demo/pid"))" >&2
	exit 1
fi
remove # what a killed demo left
[ "${1:-}" != clean ] || exit 0

[ ${#demo} -le 60 ] || fail "the path of this clone is too long for sockets below it (107 bytes): clone it nearer to /"
mkdir -p "$demo"
echo $$ >"$demo/pid"
trap finish EXIT
trap 'exit 130' INT
trap 'exit 143' TERM
http=127.0.0.1:$(free_port 7430) nats=127.0.0.1:$(free_port 7460)

say "starting Pawl: pawld up (its log: $demo/pawld.log)"
setsid bin/pawld up --data "$demo/data" --run "$demo/run" --http "$http" --nats-listen "$nats" \
	--node-name demo --pod-cidr $cidr >"$demo/pawld.log" 2>&1 &
pawld=$!
until_ready 60 "is it ready?" up "http://$http/readyz"

say "building the example's image and importing it: pawl image import"
go run ./examples/images -out "$demo/images" hello
bin/pawl image import "$demo/images/hello.tar"

say "pushing examples/hello: git push"
git clone -q -c include.path="$XDG_CONFIG_HOME/pawl/gitconfig" "http://$http/git/cluster.git" "$demo/cluster" 2>/dev/null
cp -R examples/hello/. "$demo/cluster"
git -C "$demo/cluster" add -A
git -C "$demo/cluster" commit -q -m "Say hello"
git -C "$demo/cluster" push --no-progress origin HEAD:main
until_ready 60 "do its pods serve?" address

url=http://$ip:8080/
say "curl $url"
curl -fsS --max-time 10 "$url" || fail "$url does not answer"
[ -z "${DEMO_ONCE:-}" ] || exit 0

trap 'exit 0' INT
say "It runs. In another terminal, as root, in $PWD:
   export XDG_CONFIG_HOME=$XDG_CONFIG_HOME
   curl $url
   bin/tools/nats --context pawl kv ls pawl-actual   # what runs
   bin/pawl history                                  # what every push did
   cd $demo/cluster   # change replicas, break a field, commit, git push origin HEAD:main
   Ctrl-C here stops and removes everything."
wait "$pawld" || fail "pawld has ended"
