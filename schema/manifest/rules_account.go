package manifest

import (
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/pawl-project/pawl/schema"
)

// accountRoles are the roles that a ServiceAccount may be given: those of people.
var accountRoles = []string{"admin", "view"}

// accountRules refuse a role that there is not: a typing error must not be found
// out by what the account may not do.
func (o *objectReader) accountRules(x *corev1.ServiceAccount) {
	role, given := x.Annotations[schema.AnnotationRole]
	if given && !slices.Contains(accountRoles, role) {
		o.fault(fieldPath("metadata.annotations", schema.AnnotationRole), fmt.Sprintf("must be one of admin, view, is %s", quote(role)),
			"without it the account may only ask the API about itself")
	}
}
