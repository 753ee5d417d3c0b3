package manifest

import (
	"strconv"

	k8sschema "k8s.io/apimachinery/pkg/runtime/schema"
)

// oldVersions are API versions that Kubernetes has removed and that map onto
// today's without loss.
var oldVersions = map[k8sschema.GroupVersionKind]k8sschema.GroupVersionKind{
	{Group: "extensions", Version: "v1beta1", Kind: "Deployment"}: {Group: "apps", Version: "v1", Kind: "Deployment"},
	{Group: "apps", Version: "v1beta1", Kind: "Deployment"}:       {Group: "apps", Version: "v1", Kind: "Deployment"},
	{Group: "apps", Version: "v1beta2", Kind: "Deployment"}:       {Group: "apps", Version: "v1", Kind: "Deployment"},
	{Group: "extensions", Version: "v1beta1", Kind: "ReplicaSet"}: {Group: "apps", Version: "v1", Kind: "ReplicaSet"},
	{Group: "apps", Version: "v1beta2", Kind: "ReplicaSet"}:       {Group: "apps", Version: "v1", Kind: "ReplicaSet"},
}

// noDeadline is what "no limit" is called in today's version.
const noDeadline = 1<<31 - 1

// convert writes an object of an old API version as one of today's, with the
// defaults that the old version had where they differ. What it adds stands, for
// faults, where the thing stood that it came from.
func (o *objectReader) convert(root *node) *node {
	version := root.str("apiVersion")
	current := o.info.GVK.GroupVersion().String()
	if version == current {
		return root
	}
	o.warn(root.find("apiVersion"), "apiVersion", version+" was removed from Kubernetes; read as "+current, "write apiVersion: "+current)
	root = root.with("apiVersion", textNode(current, root.get("apiVersion").at))
	spec := root.get("spec")
	if spec == nil || spec.kind != mapNode {
		return root
	}
	at := root.find("spec")
	if version != "apps/v1beta2" {
		spec = defaultSelector(spec, at)
	}
	if o.info.GVK.Kind == "Deployment" {
		spec = oldDeploymentDefaults(spec, at, version)
	}
	return root.with("spec", spec)
}

// defaultSelector selects the labels of the template when nothing is selected.
func defaultSelector(spec *node, at position) *node {
	labels := spec.get("template").get("metadata").get("labels")
	if labels == nil || labels.kind != mapNode {
		return spec
	}
	if s := spec.get("selector"); s != nil && s.kind != nullNode && len(s.fields) > 0 {
		return spec
	}
	return spec.with("selector", &node{kind: mapNode, at: at, fields: []field{{key: "matchLabels", at: at, value: labels}}})
}

func oldDeploymentDefaults(spec *node, at position, version string) *node {
	absent := func(n *node, key string) bool {
		v := n.get(key)
		return v == nil || v.kind == nullNode
	}
	setInt := func(n *node, key string, value int64) *node {
		if !absent(n, key) {
			return n
		}
		return n.with(key, numberOf(value, at))
	}
	switch version {
	case "extensions/v1beta1":
		spec = setInt(spec, "progressDeadlineSeconds", noDeadline)
		spec = setInt(spec, "revisionHistoryLimit", noDeadline)
		spec = oldRollingUpdate(spec, at, setInt)
	case "apps/v1beta1":
		spec = setInt(spec, "revisionHistoryLimit", 2)
	}
	return spec
}

// oldRollingUpdate is one pod more and one less, where today's is a quarter.
func oldRollingUpdate(spec *node, at position, setInt func(*node, string, int64) *node) *node {
	strategy := spec.get("strategy")
	if strategy == nil || strategy.kind == nullNode {
		strategy = &node{kind: mapNode, at: at}
	}
	if strategy.kind != mapNode || strategy.str("type") == "Recreate" {
		return spec
	}
	rolling := strategy.get("rollingUpdate")
	if rolling == nil || rolling.kind == nullNode {
		rolling = &node{kind: mapNode, at: at}
	}
	if rolling.kind != mapNode {
		return spec
	}
	rolling = setInt(setInt(rolling, "maxSurge", 1), "maxUnavailable", 1)
	return spec.with("strategy", strategy.with("rollingUpdate", rolling))
}

func textNode(text string, at position) *node {
	return &node{kind: stringNode, at: at, text: text, size: 1, bytes: len(text)}
}

func numberOf(value int64, at position) *node {
	return &node{kind: intNode, at: at, text: strconv.FormatInt(value, 10), size: 1}
}
