// Package satoken makes and reads the tokens of service accounts: JSON Web Tokens
// with the claims of Kubernetes' bound tokens, signed with the cluster's key.
//
// A token says which pod it was given to. Whether that pod still exists is not
// known here: who reads a token asks elsewhere, each time.
//
// It refuses every token that the cluster's key did not sign with ES256, whatever
// the token itself says of keys and algorithms, and says of a wrong token only
// that it is wrong. It keeps nothing, reads no clock and starts nothing.
package satoken
