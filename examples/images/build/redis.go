package build

import (
	"context"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// redisServer is /usr/local/bin/redis-server. The usual image is compiled
// without protected mode, which would refuse other pods; Debian's is not.
const redisServer = `#!/bin/sh
case " $* " in
*" --protected-mode "* | " --version " | " -v " | " --help " | " -h " | " --check-system " | " --test-memory "*) exec /bin/redis-server "$@" ;;
*) exec /bin/redis-server "$@" --protected-mode no ;;
esac
`

// redisEntrypoint lets a container's args be options or a configuration file.
const redisEntrypoint = `#!/bin/sh
case "${1:-}" in
-* | *.conf) set -- redis-server "$@" ;;
esac
exec "$@"
`

func redisLayers(ctx context.Context, tag string) ([]packed, error) {
	base, err := busyboxLayers(ctx, tag)
	if err != nil {
		return nil, err
	}
	server, err := cached(ctx, "redis", []string{distribution(), redisServer, redisEntrypoint, "1"}, redisTree)
	return append(base, server), err
}

func redisTree(ctx context.Context) (text []byte, err error) {
	err = fromPackages(ctx, []string{"redis-tools"}, func(root string) error {
		t := tree{}
		// One program is the server, and two checkers by the name it is called by.
		if err := t.addProgram(root, "redis-check-rdb", "bin/redis-server"); err != nil {
			return err
		}
		if err := t.addProgram(root, "redis-cli", "bin/redis-cli"); err != nil {
			return err
		}
		t.script("usr/local/bin/redis-server", redisServer)
		t.symlink("usr/local/bin/redis-cli", "/bin/redis-cli")
		t.script("usr/local/bin/docker-entrypoint.sh", redisEntrypoint)
		t.folder("data", 0o777)
		text, err = t.pack()
		return err
	})
	return text, err
}

func redisConfig(tag string) v1.Config {
	return v1.Config{
		Entrypoint:   []string{"docker-entrypoint.sh"},
		Cmd:          []string{"redis-server"},
		Env:          []string{"REDIS_VERSION=" + tag},
		WorkingDir:   "/data",
		Volumes:      map[string]struct{}{"/data": {}},
		ExposedPorts: map[string]struct{}{"6379/tcp": {}},
	}
}
