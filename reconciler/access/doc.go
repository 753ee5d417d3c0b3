// Package access is the lock of the front door: it says who a caller is, what
// the caller may do, and how the connection is kept from others' eyes.
//
// Who: a bearer token (the administrator's and the viewer's, made at the first
// start, and named ones for people), a client certificate of the cluster's own
// authority, or a pod by the token of its service account, which is made and read
// here and dies with the pod. What: two roles, admin and view, with Kubernetes'
// meaning. A service account has neither, and may only ask what it is and what
// there is to ask for, until its manifest names one (schema.AnnotationRole). How:
// TLS with a serving certificate made and renewed here, or with one's own.
//
// Not every pod gets a token, as in Kubernetes every one does: one that names a
// service account does, or asks for it, or whose account says so (reconciler/plan
// decides). A token of the account that nobody named would open nothing, and yet be
// a credential in a container, a file system in memory and a question to the
// control plane for each start; and a node that comes up without its control
// plane starts what it was assigned, which a pod that needs a token cannot.
//
// It refuses to keep a named token itself (only its hash is stored), to say of a
// wrong credential what is wrong with it, to write a token or a key into a log
// line, an answer or an error, and to lock out the right callers because of
// the wrong ones.
package access
