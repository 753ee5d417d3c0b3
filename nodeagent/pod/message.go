package pod

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
)

// Bounds of termination messages, in bytes; Kubernetes' own.
const (
	// MessageMost is how much is taken of the end of the file in which a container
	// leaves its message.
	MessageMost = 4096
	// MessageLogMost and MessageLogLines bound what is taken of the end of its log
	// instead.
	MessageLogMost  = 2048
	MessageLogLines = 80
	// podMessagesMost bounds the messages of all containers of a pod together.
	podMessagesMost = 12 << 10
)

// shorten gives each container its share of the pod's bound on messages.
func shorten(s *corev1.PodStatus) {
	each := podMessagesMost / max(1, len(s.InitContainerStatuses)+len(s.ContainerStatuses))
	for _, list := range [][]corev1.ContainerStatus{s.InitContainerStatuses, s.ContainerStatuses} {
		for i := range list {
			for _, state := range []*corev1.ContainerState{&list[i].State, &list[i].LastTerminationState} {
				if t := state.Terminated; t != nil {
					t.Message = cut(t.Message, each)
				}
			}
		}
	}
}

// cut is at most the first n bytes of a text, whole characters only.
func cut(text string, n int) string {
	if len(text) <= n {
		return text
	}
	return strings.ToValidUTF8(text[:n], "")
}

// MessageLines is what stands in for a message of the end of a log: at most so
// many lines and bytes as Kubernetes takes.
func MessageLines(text string) string {
	if over := len(text) - MessageLogMost; over > 0 {
		text = text[over:]
	}
	end := strings.TrimSuffix(text, "\n")
	at := len(end)
	for range MessageLogLines {
		if at = strings.LastIndexByte(end[:at], '\n'); at < 0 {
			return text
		}
	}
	return text[at+1:]
}
