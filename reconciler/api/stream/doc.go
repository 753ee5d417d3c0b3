// Package stream serves the endless answers of the Kubernetes API: a pod's log,
// a command in a container or its main process, connections with its ports, and
// copies of its files. It stands between a client
// (chunked text, WebSocket or SPDY, as kubectl speaks them) and a stream to the
// pod's node, and hands bytes on in both directions.
//
// It keeps nothing: a slow reader holds the node back through the stream's
// window, so that each request costs some buffers whatever its length. When the
// client goes, the stream to the node is closed at once, and the node ends what
// it started.
//
// The package refuses to judge who may do what (the front door has asked
// already), to choose a container where Kubernetes asks for one, and to open
// more streams than it was told.
package stream
