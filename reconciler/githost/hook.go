package githost

// The names that the hook, the daemon and git agree on.
const (
	pushDirEnv       = "PAWL_PUSH_DIR"
	pushDirPrefix    = "push-"
	quarantinePrefix = "tmp_objdir-incoming-"
)

// hook is the pre-receive hook: it hands the question to the daemon and prints
// the answer. It is sh, because a shell is there in a millisecond.
//
// Both FIFOs are opened for reading and writing first, which never blocks, then
// for one direction only. From there on a daemon that dies is an error or an end
// of file and not a hook that hangs: the daemon holds both open for the whole
// push. What users wrote is only ever read into a variable and printed.
const hook = `#!/bin/sh
# Written by pawld at every start; changes are lost.
trap '' PIPE
fail() {
	printf 'pawl: refused: %s; nothing was changed\n' "$1" >&2
	exit 1
}
if [ -z "$PAWL_PUSH_DIR" ]; then
	fail 'push over HTTP, where the daemon checks what is pushed'
fi
if [ ! -p "$PAWL_PUSH_DIR/ask" ] || [ ! -p "$PAWL_PUSH_DIR/answer" ]; then
	fail 'the daemon is gone, push again'
fi
exec 3<>"$PAWL_PUSH_DIR/ask" 4<>"$PAWL_PUSH_DIR/answer" || exit 1
exec 5>"$PAWL_PUSH_DIR/ask" 6<"$PAWL_PUSH_DIR/answer" || exit 1
exec 3>&- 4>&-
{
	printf '%s\n' "$GIT_QUARANTINE_PATH"
	while IFS= read -r line; do
		printf '%s\n' "$line"
	done
	printf '.\n'
} >&5 || fail 'the daemon is gone, push again'
while IFS= read -r line <&6; do
	case $line in
	'> '*) printf '%s\n' "${line#> }" >&2 ;;
	accept) exit 0 ;;
	refuse) exit 1 ;;
	esac
done
fail 'the daemon is gone, push again'
`
