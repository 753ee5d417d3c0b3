package schema

import "embed"

// Definitions are the CUE files that say which fields exist, of what types and
// bounds, and what Pawl does with them. Package schema/manifest reads them.
//
//go:embed *.cue
var Definitions embed.FS
