package manifest

import (
	"fmt"
	"strings"

	k8sschema "k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/pawl-project/pawl/schema"
)

const defaultNamespace = "default"

// foreignKinds are kinds of Kubernetes itself that Pawl knows of and does not
// run, so that the refusal can tell them from custom resources and typing errors.
var foreignKinds = map[string]string{
	"StatefulSet": "apps", "DaemonSet": "apps", "ControllerRevision": "apps",
	"Job": "batch", "CronJob": "batch",
	"HorizontalPodAutoscaler": "autoscaling",
	"Ingress":                 "networking.k8s.io", "IngressClass": "networking.k8s.io", "NetworkPolicy": "networking.k8s.io",
	"PodDisruptionBudget": "policy", "PodSecurityPolicy": "policy",
	"Role": "rbac.authorization.k8s.io", "RoleBinding": "rbac.authorization.k8s.io",
	"ClusterRole": "rbac.authorization.k8s.io", "ClusterRoleBinding": "rbac.authorization.k8s.io",
	"StorageClass": "storage.k8s.io", "VolumeAttachment": "storage.k8s.io", "CSIDriver": "storage.k8s.io", "CSINode": "storage.k8s.io",
	"PriorityClass": "scheduling.k8s.io", "RuntimeClass": "node.k8s.io", "Lease": "coordination.k8s.io",
	"EndpointSlice": "discovery.k8s.io", "CustomResourceDefinition": "apiextensions.k8s.io", "APIService": "apiregistration.k8s.io",
	"MutatingWebhookConfiguration": "admissionregistration.k8s.io", "ValidatingWebhookConfiguration": "admissionregistration.k8s.io",
	"ValidatingAdmissionPolicy": "admissionregistration.k8s.io", "ValidatingAdmissionPolicyBinding": "admissionregistration.k8s.io",
	"PersistentVolume": "", "PersistentVolumeClaim": "", "Endpoints": "", "Event": "",
	"LimitRange": "", "ResourceQuota": "", "PodTemplate": "", "Binding": "", "ComponentStatus": "",
}

// identify finds out what kind of object the document is. It is false when the
// document is no object that Pawl knows, which it has then said.
func (o *objectReader) identify() bool {
	apiVersion, kind, ok := o.typeMeta()
	if !ok {
		return false
	}
	gvk := k8sschema.FromAPIVersionAndKind(apiVersion, kind)
	if to, old := oldVersions[gvk]; old {
		gvk = to
	}
	info, known := schema.LookupGVK(gvk)
	if known && info.Manifest {
		o.info = info
		o.title = describe(o.root, info)
		return true
	}
	problem, remedy := unknownKind(apiVersion, kind, gvk)
	at := o.root.find("kind")
	if strings.HasPrefix(problem, "apiVersion") {
		at = o.root.find("apiVersion")
	}
	o.title = strings.TrimSpace(short(kind) + " " + short(o.root.get("metadata").str("name")))
	o.faultAt(at, "", problem, remedy)
	return false
}

// typeMeta reads apiVersion and kind, and says what is wrong with them.
func (o *objectReader) typeMeta() (apiVersion, kind string, ok bool) {
	if o.root.kind != mapNode {
		o.faultAt(o.root.at, "", "is "+o.root.kind.String()+", not an object", "a manifest is a map with apiVersion, kind and metadata")
		return "", "", false
	}
	ok = true
	for _, key := range [...]string{"apiVersion", "kind"} {
		switch v := o.root.get(key); {
		case v == nil:
			remedy := "a manifest begins with apiVersion and kind"
			for _, f := range o.root.fields {
				if f.key != key && (strings.EqualFold(f.key, key) || distance(f.key, key) == 1) {
					remedy = fmt.Sprintf("%s is written %s", quote(f.key), key)
				}
			}
			o.faultAt(o.root.at, "", "has no "+key, remedy)
			ok = false
		case v.kind != stringNode || v.text == "":
			o.faultAt(o.root.find(key), key, "must be text, is "+v.describe(), "")
			ok = false
		}
	}
	return o.root.str("apiVersion"), o.root.str("kind"), ok
}

// unknownKind says why Pawl does not take a kind.
func unknownKind(apiVersion, kind string, gvk k8sschema.GroupVersionKind) (problem, remedy string) {
	if info, known := schema.LookupGVK(gvk); known {
		return fmt.Sprintf("kind %s is reported by the cluster, not declared in Git", info.GVK.Kind), "remove it"
	}
	for _, info := range schema.Kinds() {
		if info.Manifest && info.GVK.Kind == kind {
			return fmt.Sprintf("apiVersion %s has no kind %s that Pawl knows", quote(apiVersion), kind),
				"write apiVersion: " + info.GVK.GroupVersion().String()
		}
	}
	if group, foreign := foreignKinds[kind]; foreign && (group == gvk.Group || gvk.Group == "extensions") {
		return fmt.Sprintf("kind %s of %s is not supported by Pawl yet", kind, apiVersion), "supported are " + supportedKinds()
	}
	for _, info := range schema.Kinds() {
		if info.Manifest && distance(kind, info.GVK.Kind) <= 2 {
			return fmt.Sprintf("unknown kind %s", quote(kind)), fmt.Sprintf("did you mean %s?", info.GVK.Kind)
		}
	}
	return fmt.Sprintf("unknown kind %s of %s", quote(kind), quote(apiVersion)), "Pawl runs no custom resources; supported are " + supportedKinds()
}

func supportedKinds() string {
	var names []string
	for _, info := range schema.Kinds() {
		if info.Manifest {
			names = append(names, info.GVK.Kind)
		}
	}
	return strings.Join(names, ", ")
}

// flatten replaces every v1 List by its items, nested ones too.
func flatten(documents []document, faults *faultList) []document {
	out := make([]document, 0, len(documents))
	for _, d := range documents {
		out = flattenInto(out, d, faults)
	}
	return out
}

func flattenInto(out []document, d document, faults *faultList) []document {
	if d.root.str("kind") != "List" || d.root.str("apiVersion") != "v1" {
		return append(out, d)
	}
	for _, f := range d.root.fields {
		switch f.key {
		case "apiVersion", "kind", "metadata":
		case "items":
			if f.value.kind == nullNode {
				continue
			}
			if f.value.kind != listNode {
				faults.at(d.file, f.value.at, "items of a List must be a list, is "+f.value.kind.String(), "")
				continue
			}
			for _, item := range f.value.items {
				out = flattenInto(out, document{file: d.file, root: item}, faults)
				if len(out) > maxFileObjects {
					return out
				}
			}
		default:
			faults.at(d.file, f.at, "unknown field of a List: "+keyWord(f.key), "a List has apiVersion, kind, metadata and items")
		}
	}
	return out
}
