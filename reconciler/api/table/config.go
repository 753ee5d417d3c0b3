package table

import (
	"time"

	corev1 "k8s.io/api/core/v1"
)

var namespaces = of(func(n *corev1.Namespace, now time.Time) []any {
	return []any{n.Name, string(n.Status.Phase), age(n.CreationTimestamp, now)}
},
	nameColumn,
	text("Status", "The status of the namespace"),
	ageColumn,
)

var configMaps = of(func(c *corev1.ConfigMap, now time.Time) []any {
	return []any{c.Name, int64(len(c.Data) + len(c.BinaryData)), age(c.CreationTimestamp, now)}
},
	nameColumn,
	text("Data", corev1.ConfigMap{}.SwaggerDoc()["data"]),
	ageColumn,
)

var secrets = of(func(s *corev1.Secret, now time.Time) []any {
	return []any{s.Name, string(s.Type), int64(len(s.Data)), age(s.CreationTimestamp, now)}
},
	nameColumn,
	text("Type", corev1.Secret{}.SwaggerDoc()["type"]),
	text("Data", corev1.Secret{}.SwaggerDoc()["data"]),
	ageColumn,
)
