package table

import (
	"time"

	corev1 "k8s.io/api/core/v1"
)

var serviceAccounts = of(func(a *corev1.ServiceAccount, now time.Time) []any {
	return []any{a.Name, int64(len(a.Secrets)), age(a.CreationTimestamp, now)}
},
	nameColumn,
	text("Secrets", corev1.ServiceAccount{}.SwaggerDoc()["secrets"]),
	ageColumn,
)
