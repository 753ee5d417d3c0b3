package schema

import "time"

// A Commit is one state of the repository: who said it, when, and the files.
type Commit struct {
	ID      string // full hash, lower-case hex
	Author  string // display name
	Email   string
	When    time.Time // author date
	Subject string    // first line of the message
	Tree    Tree
}

// A Tree is the files of a commit or of a working tree, below the deployed path.
type Tree interface {
	// Files lists every entry that is not a directory, sorted by path.
	Files() []TreeFile
	// Read returns the content of one regular file of Files. It fails with
	// ErrRefused when the content is larger than limit bytes, before it is in memory.
	Read(f TreeFile, limit int64) ([]byte, error)
}

// FileMode tells the entries of a Tree apart.
type FileMode int

// The modes Git knows of entries that are not directories.
const (
	ModeRegular FileMode = iota
	ModeSymlink
	ModeSubmodule
)

// A TreeFile is one entry of a Tree.
type TreeFile struct {
	Path string // slash-separated, relative to the tree's root, as Git spells it
	Blob string // Git's hash of the content: equal blobs have equal content
	Size int64  // bytes; 0 for a submodule
	Mode FileMode
}
