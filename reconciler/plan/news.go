package plan

import (
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/pawl-project/pawl/schema"
)

// A News is one thing that people are told of an object.
type News struct {
	About   schema.ObjectKey
	UID     types.UID // of the pod that About names; "": it is no pod, or it is not known
	Type    string    // corev1.EventTypeNormal or EventTypeWarning
	Event   string    // CamelCase, as Kubernetes names it
	Message string
}

// News is what people are told of a change, in order: nothing of most. A pod
// that is made is news of its owner, and that it got a node is news of the pod.
func (c Change) News() []News {
	if c.Type == "" {
		return nil
	}
	var all []News
	if c.Owner.Name != "" {
		all = append(all, News{About: c.Owner, Type: corev1.EventTypeNormal, Event: "SuccessfulCreate", Message: createdPod(c.subject().Name)})
	}
	n := News{About: c.About, Type: c.Type, Event: c.Event, Message: c.Message}
	if c.About.Kind == schema.Pods {
		n.UID = c.UID
	}
	all = append(all, n)
	if c.Assign != nil && c.Event == "SuccessfulCreate" {
		p := &c.Assign.Pod
		k := podKey(p)
		all = append(all, News{About: objectKey(k), UID: p.UID, Type: corev1.EventTypeNormal, Event: "Scheduled", Message: assignedPod(k, c.Assign.Node)})
	}
	return all
}

// subject is the pod that the change is about.
func (c Change) subject() schema.PodKey {
	return schema.PodKey{Namespace: c.About.Namespace, Name: c.About.Name}
}

func createdPod(name string) string { return "Created pod: " + name }

func assignedPod(k schema.PodKey, n schema.NodeName) string {
	return "Successfully assigned " + k.String() + " to " + string(n)
}
