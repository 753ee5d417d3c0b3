package table

import (
	"time"

	schedulingv1 "k8s.io/api/scheduling/v1"
)

var priorityClasses = of(func(c *schedulingv1.PriorityClass, now time.Time) []any {
	policy := ""
	if c.PreemptionPolicy != nil {
		policy = string(*c.PreemptionPolicy)
	}
	return []any{c.Name, int64(c.Value), c.GlobalDefault, age(c.CreationTimestamp, now), policy}
},
	nameColumn,
	number("Value", schedulingv1.PriorityClass{}.SwaggerDoc()["value"]),
	text("Global-Default", schedulingv1.PriorityClass{}.SwaggerDoc()["globalDefault"]),
	ageColumn,
	text("PreemptionPolicy", schedulingv1.PriorityClass{}.SwaggerDoc()["preemptionPolicy"]),
)
