// Package runtimetest is what every nodeagent.Runtime must pass, the agent's
// own fake and the real one alike, so that what is tested with the fake holds
// for the real one.
//
// It refuses to know how a runtime works: it asserts the state reached.
package runtimetest
