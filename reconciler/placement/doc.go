// Package placement decides which node a pod goes to: it filters the nodes by
// what the pod cannot do without, scores what is left, and says per node why
// not when nothing is. What the fields of a pod mean for this is what Kubernetes
// documents for them, and the reasons are worded as its scheduler words them.
//
// It refuses to do: equal inputs give equal answers, names break ties. It
// changes nothing but the accounts it is told to change, moves no pod that has a
// place, ends none (MakeRoom only says which ones would have to go), and knows
// no clock.
//
// Only pods with constraints pay for them. A pod without any is held against
// the nodes alone, and against what pods that are there already forbid others.
//
// What many pods ask is worked out once:
//
//	layout   what the nodes are like, without pods, until one says something else
//	kind     pods that say the same of where they go: which nodes would take them
//	tally    how many pods of some sort are in each domain; it follows them
//	class    pods of one namespace with the same labels: a tally counts by these
//	ask      one pod's questions, held against one node after another
package placement
