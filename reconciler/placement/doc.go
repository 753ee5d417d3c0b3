// Package placement decides which node a pod goes to: it filters the nodes by
// what the pod cannot do without, scores what is left, and says per node why
// not when nothing is.
//
// It refuses to do: equal inputs give equal answers, names break ties. It
// changes nothing but the accounts of the nodes it is told to change, moves no
// pod that has a place, and knows no clock.
package placement
