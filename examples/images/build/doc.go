// Package build makes the small container images that Pawl's examples and tests
// run: a web server of our own, busybox, and real nginx and redis. What it cannot
// compile it takes from Debian's packages, without installing them.
//
// Images are known by the names that manifests use ("nginx:1.7.9", "redis"), so
// that a registry of them stands in for docker.io. All tags of nginx hold one
// nginx: only the page it serves, which shows the tag, differs. These images are
// for trying things out; they are not meant for production.
//
// What was made is kept in a cache directory, keyed by what it was made from.
package build
