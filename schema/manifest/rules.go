package manifest

import "github.com/pawl-project/pawl/schema"

func (o *objectReader) rules(object schema.Object) {
	if object.GetName() == "" {
		o.fault("metadata.name", "is missing", "every object in Git has a name")
	}
}
