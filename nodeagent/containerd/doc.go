// Package containerd is the agent's container runtime: it drives a containerd
// through its Go client, and can run a private containerd beside the agent.
//
// What it knows stands in containerd (records and their labels, tasks) and below
// the instance's directories (pinned namespaces, FIFOs, sandbox records), never
// only in its memory: a Runtime may be dropped at any instant, and a new one over
// the same directories goes on. Containers do not notice.
//
// There is no CRI and no pause container. A pod's network, IPC and UTS namespaces
// are pinned by bind mounts; one shim serves all containers of a pod.
//
// Commands in containers end with whoever asked for them; what a killed agent
// left of them the next one ends. A log is read from its files, so that no
// reader, however slow, holds a container back.
//
// It refuses to touch anything that does not carry its instance's label, to copy
// labels of images to containers, and to mount volumes that an image declares
// from the host: those are empty directories of its own.
package containerd
