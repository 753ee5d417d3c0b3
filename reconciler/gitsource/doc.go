// Package gitsource reads commits out of Git: a branch moved, here is the
// commit and its file tree. It follows the built-in repository or a remote one,
// and it is the only importer of go-git.
//
// Files are read from the object store and never checked out. The package
// refuses to judge what stands in a file (schema/manifest does), to write to a
// repository that it does not mirror, and to follow symlinks or submodules: it
// reports them by their mode. Nothing else about Git goes further than this.
package gitsource
