package manifest

// check is filled from the definitions.
func (o *objectReader) check() *node {
	return o.root.without("status")
}
