package manifest

import "strings"

// describe says what a value is, for faults: the number 5, a list.
func (n *node) describe() string {
	switch n.kind {
	case stringNode:
		return "the string " + quote(n.text)
	case intNode, floatNode:
		return "the number " + n.written()
	case boolNode:
		return "the boolean " + n.written()
	}
	return n.kind.String()
}

// written is a scalar as the manifest spells it.
func (n *node) written() string {
	if n.raw != "" {
		return n.raw
	}
	return n.text
}

// nearest finds the word that was probably meant, "" when none is near. Case
// does not count, so that hostname finds hostName.
func nearest(word string, words []string) string {
	best, bestDistance := "", 1+max(1, min(3, len(word)/3))
	for _, w := range words {
		d := distance(strings.ToLower(word), strings.ToLower(w))
		if d < bestDistance || (d == bestDistance && best != "" && w < best) {
			best, bestDistance = w, d
		}
	}
	return best
}

// distance counts the edits (insert, delete, replace, swap neighbours) between
// two words. Words of manifests are short; longer ones are nothing alike.
func distance(a, b string) int {
	const longest = 64
	if a == b {
		return 0
	}
	if len(a) > longest || len(b) > longest {
		return longest
	}
	rows := [3][]int{make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)}
	for j := range rows[0] {
		rows[0][j] = j
	}
	before, previous, current := rows[2], rows[0], rows[1]
	for i := 1; i <= len(a); i++ {
		current[0] = i
		for j := 1; j <= len(b); j++ {
			cost := 1
			if a[i-1] == b[j-1] {
				cost = 0
			}
			current[j] = min(previous[j]+1, current[j-1]+1, previous[j-1]+cost)
			if i > 1 && j > 1 && a[i-1] == b[j-2] && a[i-2] == b[j-1] {
				current[j] = min(current[j], before[j-2]+1)
			}
		}
		before, previous, current = previous, current, before
	}
	return previous[len(b)]
}
