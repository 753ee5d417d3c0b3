package table

import (
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
)

var events = of(eventRow,
	text("Last Seen", corev1.Event{}.SwaggerDoc()["lastTimestamp"]),
	text("Type", corev1.Event{}.SwaggerDoc()["type"]),
	text("Reason", corev1.Event{}.SwaggerDoc()["reason"]),
	text("Object", corev1.Event{}.SwaggerDoc()["involvedObject"]),
	inWide(text("Subobject", corev1.ObjectReference{}.SwaggerDoc()["fieldPath"])),
	inWide(text("Source", corev1.Event{}.SwaggerDoc()["source"])),
	text("Message", corev1.Event{}.SwaggerDoc()["message"]),
	inWide(text("First Seen", corev1.Event{}.SwaggerDoc()["firstTimestamp"])),
	inWide(text("Count", corev1.Event{}.SwaggerDoc()["count"])),
	inWide(nameColumn),
)

func eventRow(e *corev1.Event, now time.Time) []any {
	first, last, count := occurred(e)
	return []any{
		since(last, now), e.Type, e.Reason, eventObject(e), e.InvolvedObject.FieldPath, eventSource(e),
		strings.TrimSpace(e.Message), since(first, now), count, e.Name,
	}
}

// occurred returns when an event was seen first and last, and how often. There
// are two ways to write that down, an older and a newer one.
func occurred(e *corev1.Event) (first, last time.Time, count int64) {
	first, last, count = e.FirstTimestamp.Time, e.LastTimestamp.Time, int64(e.Count)
	if first.IsZero() {
		first = e.EventTime.Time
	}
	if last.IsZero() {
		last = first
	}
	if e.Series != nil {
		return first, e.Series.LastObservedTime.Time, int64(e.Series.Count)
	}
	return first, last, max(count, 1) // the newer way leaves the count of a single event out
}

func eventObject(e *corev1.Event) string {
	kind := strings.ToLower(e.InvolvedObject.Kind)
	if e.InvolvedObject.Name == "" {
		return kind
	}
	return kind + "/" + e.InvolvedObject.Name
}

// eventSource is who reported an event, and where that ran.
func eventSource(e *corev1.Event) string {
	component, host := or(e.Source.Component, e.ReportingController), or(e.Source.Host, e.ReportingInstance)
	if host == "" {
		return component
	}
	return component + ", " + host
}
