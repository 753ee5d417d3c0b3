// Package volume makes the host's side of a pod's volumes: empty directories on
// disk or in memory, and the files of ConfigMaps, Secrets and the pod's own
// fields. It implements nodeagent.Volumes.
//
//	<DataDir>/<uid>/<volume>/               on the node's disk
//	<RunDir>/<uid>/<volume>/                a tmpfs of its own: Secrets, tokens, medium Memory; or an NFS mount
//	<RunDir>/<uid>/..parts/<container>/<n>  a bind mount of one subPath
//
// Files of objects change all at once: they lie in a directory that is replaced
// by turning one symbolic link ("..data"), as Kubernetes does it, so that a reader
// never sees half an update. A subPath is resolved by the kernel below its volume
// (openat2, Linux 5.6) and pinned by a bind mount at once, so that a container
// that swaps directories for symbolic links gains nothing.
//
// Nothing is remembered in memory: every call looks at the disk, so a killed
// agent goes on where it was. What is written is not synced, because pods do not
// outlive the machine's restart and Setup compares what is there.
//
// A hostPath is the node's own: it is looked at, made when its type says so, and
// never removed. An emptyDir in memory cannot grow beyond its sizeLimit; one on
// disk is measured by the agent, which evicts the pod. The package refuses every
// network volume but NFS, and never writes a Secret to disk.
package volume
