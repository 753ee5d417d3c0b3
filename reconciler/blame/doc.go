// Package blame says who gave an object its present form: for the object and for
// each of its fields the commit, with author, time, file and line.
//
// It looks from the commit that the object carries in its annotations into the
// past, along first parents, and compares the object in each commit with the one
// before it. An object is followed into another file; where it was not there
// before, its story begins. What is compared is text with positions
// (schema/manifest), so nothing of the cluster's defaults shows.
//
// The package refuses to show the data of Secrets, to look further than it was
// allowed to (it says so then), and to guess about objects that CUE makes: of
// those only the file's commits are known.
package blame
