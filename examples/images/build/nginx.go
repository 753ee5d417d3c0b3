package build

import (
	"context"
	"fmt"

	v1 "github.com/google/go-containerregistry/pkg/v1"
)

const nginxConf = `user nginx;
worker_processes 1;
pid /run/nginx.pid;
error_log /var/log/nginx/error.log notice;
events { worker_connections 1024; }
http {
    include /etc/nginx/mime.types;
    default_type application/octet-stream;
    access_log /var/log/nginx/access.log;
    sendfile on;
    keepalive_timeout 65;
    include /etc/nginx/conf.d/*.conf;
}
`

const nginxSite = `server {
    listen 80;
    server_name localhost;
    location / {
        root /usr/share/nginx/html;
        index index.html index.htm;
    }
}
`

const mimeTypes = `types {
    text/html html htm;
    text/css css;
    text/plain txt;
    text/xml xml;
    application/javascript js;
    application/json json;
    application/pdf pdf;
    image/gif gif;
    image/jpeg jpeg jpg;
    image/png png;
    image/svg+xml svg;
    image/x-icon ico;
    font/woff2 woff2;
}
`

// execArgs is the entrypoint of images whose command people replace or extend.
const execArgs = "#!/bin/sh\nexec \"$@\"\n"

func nginxLayers(ctx context.Context, tag string) ([]packed, error) {
	base, err := busyboxLayers(ctx, tag)
	if err != nil {
		return nil, err
	}
	server, err := cached(ctx, "nginx", []string{distribution(), nginxConf, nginxSite, mimeTypes, execArgs, "1"}, nginxTree)
	if err != nil {
		return nil, err
	}
	page := tree{}
	page.text("usr/share/nginx/html/index.html", fmt.Sprintf("<!DOCTYPE html>\n<html><head><title>Welcome to nginx!</title></head>\n"+
		"<body><h1>Welcome to nginx!</h1>\n<p>This is image nginx:%s.</p></body></html>\n", tag))
	page.text("usr/share/nginx/html/50x.html", "<!DOCTYPE html>\n<title>Error</title><h1>An error occurred.</h1>\n")
	text, err := page.pack()
	return append(base, server, text), err
}

func nginxTree(ctx context.Context) (text []byte, err error) {
	err = fromPackages(ctx, []string{"nginx"}, func(root string) error {
		t := tree{}
		// bin is also /usr/sbin in the base layer.
		if err := t.addProgram(root, "nginx", "bin/nginx"); err != nil {
			return err
		}
		t.text("etc/nginx/nginx.conf", nginxConf)
		t.text("etc/nginx/mime.types", mimeTypes)
		t.text("etc/nginx/conf.d/default.conf", nginxSite)
		t.script("docker-entrypoint.sh", execArgs)
		t.symlink("var/log/nginx/access.log", "/dev/stdout")
		t.symlink("var/log/nginx/error.log", "/dev/stderr")
		// Debian's nginx keeps its temporary files here.
		t.folder("var/lib/nginx", 0o755)
		t.folder("var/cache/nginx", 0o755)
		text, err = t.pack()
		return err
	})
	return text, err
}

func nginxConfig(tag string) v1.Config {
	return v1.Config{
		Entrypoint:   []string{"/docker-entrypoint.sh"},
		Cmd:          []string{"nginx", "-g", "daemon off;"},
		Env:          []string{"NGINX_VERSION=" + tag},
		ExposedPorts: map[string]struct{}{"80/tcp": {}},
		StopSignal:   "SIGQUIT",
	}
}
