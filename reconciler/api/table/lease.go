package table

import (
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
)

// Leases are the columns of a Lease.
func Leases() Columns {
	return of(func(l *coordinationv1.Lease, now time.Time) []any {
		holder := ""
		if l.Spec.HolderIdentity != nil {
			holder = *l.Spec.HolderIdentity
		}
		return []any{l.Name, holder, age(l.CreationTimestamp, now)}
	}, nameColumn, text("Holder", coordinationv1.LeaseSpec{}.SwaggerDoc()["holderIdentity"]), ageColumn)
}
