package manifest

// What a commit may hold. The caps are far above what people write and far
// below what hurts; a file that is over its cap is refused unread.
const (
	maxFileBytes    = 2 << 20   // of one manifest file; an etcd would take 1.5 MiB per object
	maxTreeBytes    = 256 << 20 // of all manifest files together
	maxDocuments    = 2_000     // in one file
	maxObjects      = 100_000   // in one commit
	maxFileObjects  = 5_000     // in one file, Lists flattened
	maxDepth        = 64        // of maps and lists inside each other
	maxNodes        = 500_000   // in one document, aliases expanded
	maxDocumentSize = 4 << 20   // bytes of text in one document, aliases expanded
	maxStoredBytes  = 3 << 20   // of a ConfigMap or Secret as JSON; the store takes 4 MiB
	maxSpecBytes    = 768 << 10 // of any other object; a node reports a pod with its status in 1,000 KiB
	maxFileFaults   = 100       // reported of one file
	maxFaults       = 1_000     // reported of one commit

	maxNameRunes = 60 // of a manifest's word quoted in a fault
)
