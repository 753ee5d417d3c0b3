package plan

import (
	"cmp"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/utils/ptr"

	"github.com/pawl-project/pawl/schema"
)

var update = flag.Bool("update", false, "rewrite the stories in testdata with what the planner does now")

// TestStories plays testdata/*.txt: a line is an order to the cluster (see
// story.do), "plan" plans, writes what was planned and shows it below itself,
// indented by four spaces. After every plan a second one must be empty and a
// Planner that is told only of changes must agree.
func TestStories(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txt")
	if err != nil || len(files) == 0 {
		t.Fatalf("no stories in testdata: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txt"), func(t *testing.T) {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			played := play(t, string(text))
			if *update {
				if err := os.WriteFile(file, []byte(played), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if played != string(text) {
				t.Errorf("%s now goes otherwise; read the difference after: go test ./reconciler/plan -update\n%s", file, firstDifference(string(text), played))
			}
		})
	}
}

func firstDifference(want, got string) string {
	w, g := strings.Split(want, "\n"), strings.Split(got, "\n")
	for i := range max(len(w), len(g)) {
		a, b := "", ""
		if i < len(w) {
			a = w[i]
		}
		if i < len(g) {
			b = g[i]
		}
		if a != b {
			return fmt.Sprintf("line %d\n  was: %s\n  now: %s", i+1, a, b)
		}
	}
	return ""
}

// play runs a story and returns it with what happened.
func play(t *testing.T, text string) string {
	s := &story{t: t, c: newCluster(t)}
	var out []string
	for line := range strings.Lines(text) {
		line = strings.TrimRight(line, "\n")
		if strings.HasPrefix(line, "    ") {
			continue // what was written last time
		}
		out = append(out, line)
		if words := strings.Fields(line); len(words) > 0 && !strings.HasPrefix(words[0], "#") {
			for shown := range strings.Lines(s.do(words)) {
				out = append(out, "    "+strings.TrimRight(shown, "\n "))
			}
		}
	}
	return strings.Join(out, "\n") + "\n"
}

type story struct {
	t *testing.T
	c *cluster
}

// do carries out one order:
//
//	node n1 cpu=4 memory=8Gi pods=110 [notready] [cordoned] [label.k=v] [taint=k:Effect]
//	lose n1                      nothing is known of the node any more
//	want KIND NAME [key=value …] into Git; KIND is deployment, replicaset, controller or pod
//	class NAME value=5 [never]   a PriorityClass into Git; never: it ends no others
//	drop KIND NAME               out of Git
//	push                         the commit is accepted
//	tick 10s                     time passes
//	run [SELECT]                 pods become Running and ready on their nodes
//	start [SELECT]               … Running, but not ready
//	fail, succeed [SELECT]       … Failed, Succeeded
//	gone [SELECT]                pods that were ended are gone; with a SELECT, those pods are, ended or not
//	wipe                         the store is lost; what the nodes reported last they report again
//	forget assignments           the assignments are lost
//	double NAME n2               a fault: the pod is assigned to another node too
//	keep on|off                  World.KeepAll
//	restart NAME [grace=5] [uid=x]  the pod is ended by hand
//	plan                         plans, writes and shows it
//	pods                         shows the pods
//
// SELECT is any of: image=web:2  node=n1  count=2 (the first by name)  name=x
func (s *story) do(words []string) string {
	args := parse(words[1:])
	switch words[0] {
	case "node":
		s.node(words[1], args)
	case "lose":
		s.c.loseNode(schema.NodeName(words[1]))
	case "want":
		s.want(words[1], words[2], args)
	case "class":
		s.class(words[1], args)
	case "account":
		s.account(words[1], args)
	case "drop":
		delete(s.c.git, schema.ObjectKey{Kind: kindNamed[words[1]], Namespace: "default", Name: words[2]})
	case "push":
		d := s.c.push()
		return fmt.Sprintf("created %v changed %v removed %v", d.Created, d.Changed, d.Removed)
	case "tick":
		d, err := time.ParseDuration(words[1])
		must(s.t, d, err)
		s.c.now = s.c.now.Add(d)
	case "run", "start", "fail", "succeed":
		phase := map[string]corev1.PodPhase{"run": corev1.PodRunning, "start": corev1.PodRunning, "fail": corev1.PodFailed, "succeed": corev1.PodSucceeded}[words[0]]
		for _, a := range s.choose(args, isLiving) {
			s.c.say(a, phase, words[0] == "run")
		}
	case "gone":
		for _, a := range s.choose(args, func(ending bool) bool { return ending || len(args) > 0 }) {
			s.c.report(schema.PodReport{Node: a.Node, Pod: a.Pod, Gone: true})
		}
	case "wipe":
		s.wipe()
	case "forget":
		for _, a := range s.c.assignments() {
			s.c.unassign(a.Node, podKey(&a.Pod))
		}
	case "double":
		a := stored(s.t, s.choose(map[string]string{"name": words[1]}, isLiving)[0])
		a.Node = schema.NodeName(words[2])
		a.Pod.Spec.NodeName = words[2]
		s.c.assign(a)
	case "keep":
		s.c.w.KeepAll = words[1] == "on"
		s.c.planner.KeepAll(s.c.w.KeepAll)
	case "restart":
		return s.restart(words[1], args)
	case "plan":
		return s.plan()
	case "pods":
		return s.pods()
	default:
		s.t.Fatalf("no such order: %v", words)
	}
	return ""
}

func (s *story) plan() string {
	res := s.c.plan()
	out := describe(res.Changes)
	if out == "" {
		out = "nothing to do\n"
	}
	for _, k := range sortedKeys(res.Waiting) {
		out += fmt.Sprintf("waiting  %s %s | %s\n", k.Kind, k.Name, res.Waiting[k])
	}
	if !res.Recheck.IsZero() {
		out += fmt.Sprintf("recheck  in %s\n", res.Recheck.Sub(s.c.now))
	}
	if res.Settled {
		out += "settled\n"
	}
	return out
}

func (s *story) restart(name string, args map[string]string) string {
	var grace *int64
	if g, ok := args["grace"]; ok {
		n, err := strconv.ParseInt(g, 10, 64)
		must(s.t, n, err)
		grace = &n
	}
	k := schema.PodKey{Namespace: "default", Name: name}
	changes, p, err := s.c.planner.Restart(k, types.UID(args["uid"]), grace, "by hand", s.c.now)
	if err != nil {
		for _, class := range []error{schema.ErrNotFound, schema.ErrConflict, schema.ErrRefused} {
			if errors.Is(err, class) {
				return class.Error()
			}
		}
		s.t.Fatal(err)
	}
	s.c.apply(changes)
	return fmt.Sprintf("%sends within %ds, on node %q, %s", describe(changes), *p.DeletionGracePeriodSeconds, p.Spec.NodeName, cmp.Or(string(p.Status.Phase), "no status"))
}

func (s *story) pods() string {
	out := ""
	for _, a := range s.c.assignments() {
		state := "unreported"
		if r, ok := s.c.w.Reports[podKey(&a.Pod)]; ok && r.Node == a.Node {
			state = string(r.Pod.Status.Phase)
		}
		if a.Pod.DeletionTimestamp != nil {
			state += " ending"
		}
		out += fmt.Sprintf("%s %s %s %s\n", a.Node, a.Pod.Name, a.Pod.Spec.Containers[0].Image, state)
	}
	return out
}

func (s *story) node(name string, args map[string]string) {
	for k, v := range map[string]string{"cpu": "4", "memory": "8Gi", "pods": "110"} {
		if args[k] == "" {
			args[k] = v
		}
	}
	s.c.node(schema.NodeName(name), args["cpu"], args["memory"], args["pods"], func(n *corev1.Node) {
		if _, ok := args["notready"]; ok {
			n.Status.Conditions[0].Status = corev1.ConditionFalse
		}
		_, n.Spec.Unschedulable = args["cordoned"]
		if key, effect, ok := strings.Cut(args["taint"], ":"); ok {
			n.Spec.Taints = []corev1.Taint{{Key: key, Effect: corev1.TaintEffect(effect)}}
		}
		for k, v := range args {
			if l, ok := strings.CutPrefix(k, "label."); ok {
				n.Labels = map[string]string{l: v}
			}
		}
	})
}

// class puts a PriorityClass into Git.
func (s *story) class(name string, args map[string]string) {
	c := priorityClass(name, *number(s.t, args, "value", nil))
	if _, never := args["never"]; never {
		c.PreemptionPolicy = ptr.To(corev1.PreemptNever)
	}
	s.c.git[schema.KeyOf(c)] = c
}

func (s *story) account(name string, args map[string]string) {
	a := serviceAccount(name)
	if v, ok := args["automount"]; ok {
		a.AutomountServiceAccountToken = ptr.To(v == "true")
	}
	if v, ok := args["pull"]; ok {
		a.ImagePullSecrets = []corev1.LocalObjectReference{{Name: v}}
	}
	s.c.git[schema.KeyOf(a)] = a
}

func isLiving(ending bool) bool { return !ending }

// choose picks assigned pods, those that are to end or not as fits says.
func (s *story) choose(args map[string]string, fits func(ending bool) bool) []schema.Assignment {
	var chosen []schema.Assignment
	for _, a := range s.c.assignments() {
		if n, ok := args["node"]; ok && n != string(a.Node) {
			continue
		}
		if i, ok := args["image"]; ok && i != a.Pod.Spec.Containers[0].Image {
			continue
		}
		if n, ok := args["name"]; ok && n != a.Pod.Name {
			continue
		}
		_, waiting := args["waiting"] // not ready yet
		if r := s.c.w.Reports[podKey(&a.Pod)]; waiting && len(r.Pod.Status.Conditions) > 0 && r.Pod.Status.Conditions[0].Status == corev1.ConditionTrue {
			continue
		}
		if fits(a.Pod.DeletionTimestamp != nil) {
			chosen = append(chosen, a)
		}
	}
	if n, ok := args["count"]; ok {
		count, err := strconv.Atoi(n)
		must(s.t, count, err)
		if count > len(chosen) {
			s.t.Fatalf("%d pods wanted by the story, %d are there", count, len(chosen))
		}
		chosen = chosen[:count]
	}
	return chosen
}

// wipe loses the store. Agents report again what runs, and Git is read again.
func (s *story) wipe() {
	reports, nodes := s.c.w.Reports, s.c.w.Nodes
	s.c.forget()
	for _, k := range slices.SortedFunc(keysOf(reports), comparePodKeys) {
		if r := reports[k]; r.Node != "" && !r.Gone {
			s.c.report(r)
		}
	}
	for n, o := range nodes {
		s.c.w.Nodes[n] = o
		s.c.planner.SetNode(n, o)
	}
}

func keysOf[K comparable, V any](m map[K]V) func(func(K) bool) {
	return func(yield func(K) bool) {
		for k := range m {
			if !yield(k) {
				return
			}
		}
	}
}

var kindNamed = map[string]schema.Kind{
	"deployment": schema.Deployments, "replicaset": schema.ReplicaSets,
	"controller": schema.ReplicationControllers, "pod": schema.Pods, "account": schema.ServiceAccounts,
}

// want puts an object into Git, or changes the named fields of the one there.
func (s *story) want(kind, name string, args map[string]string) {
	k := schema.ObjectKey{Kind: kindNamed[kind], Namespace: "default", Name: name}
	var o schema.Object
	if old, ok := s.c.git[k]; ok {
		o = old.DeepCopyObject().(schema.Object)
	} else {
		o = s.blank(kind, name)
	}
	var spec *corev1.PodSpec
	switch o := o.(type) {
	case *appsv1.Deployment:
		deploymentFields(s.t, &o.Spec, args)
		spec = &o.Spec.Template.Spec
	case *appsv1.ReplicaSet:
		o.Spec.Replicas = number(s.t, args, "replicas", o.Spec.Replicas)
		o.Spec.MinReadySeconds = ptr.Deref(number(s.t, args, "minReady", &o.Spec.MinReadySeconds), 0)
		spec = &o.Spec.Template.Spec
	case *corev1.ReplicationController:
		o.Spec.Replicas = number(s.t, args, "replicas", o.Spec.Replicas)
		spec = &o.Spec.Template.Spec
	case *corev1.Pod:
		spec = &o.Spec
	}
	podFields(s.t, spec, args)
	s.c.git[k] = o
}

func (s *story) blank(kind, name string) schema.Object {
	d := deployment(name, 1, name+":1")
	meta := d.ObjectMeta
	switch kind {
	case "deployment":
		return d
	case "replicaset":
		return &appsv1.ReplicaSet{TypeMeta: metav1.TypeMeta{APIVersion: "apps/v1", Kind: "ReplicaSet"}, ObjectMeta: meta,
			Spec: appsv1.ReplicaSetSpec{Replicas: d.Spec.Replicas, Selector: d.Spec.Selector, Template: d.Spec.Template}}
	case "controller":
		return &corev1.ReplicationController{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "ReplicationController"}, ObjectMeta: meta,
			Spec: corev1.ReplicationControllerSpec{Replicas: d.Spec.Replicas, Selector: d.Spec.Selector.MatchLabels, Template: &d.Spec.Template}}
	case "pod":
		return barePod(name, name+":1")
	}
	s.t.Fatalf("no such kind: %s", kind)
	return nil
}

func deploymentFields(t *testing.T, spec *appsv1.DeploymentSpec, args map[string]string) {
	spec.Replicas = number(t, args, "replicas", spec.Replicas)
	spec.MinReadySeconds = ptr.Deref(number(t, args, "minReady", &spec.MinReadySeconds), 0)
	spec.ProgressDeadlineSeconds = number(t, args, "deadline", spec.ProgressDeadlineSeconds)
	spec.RevisionHistoryLimit = number(t, args, "history", spec.RevisionHistoryLimit)
	if v, ok := args["paused"]; ok {
		spec.Paused = v == "true"
	}
	if v, ok := args["strategy"]; ok {
		spec.Strategy.Type = appsv1.DeploymentStrategyType(v)
	}
	for _, limit := range []string{"surge", "unavailable"} {
		v, ok := args[limit]
		if !ok {
			continue
		}
		if spec.Strategy.RollingUpdate == nil {
			spec.Strategy.RollingUpdate = &appsv1.RollingUpdateDeployment{}
		}
		parsed := intstr.Parse(v)
		if limit == "surge" {
			spec.Strategy.RollingUpdate.MaxSurge = &parsed
		} else {
			spec.Strategy.RollingUpdate.MaxUnavailable = &parsed
		}
	}
	if v, ok := args["label"]; ok {
		spec.Selector = &metav1.LabelSelector{MatchLabels: map[string]string{"app": v}}
		spec.Template.Labels = map[string]string{"app": v}
	}
}

func podFields(t *testing.T, spec *corev1.PodSpec, args map[string]string) {
	c := &spec.Containers[0]
	if v, ok := args["image"]; ok {
		c.Image = v
	}
	for _, name := range []corev1.ResourceName{corev1.ResourceCPU, corev1.ResourceMemory} {
		if v, ok := args[string(name)]; ok {
			q, err := resource.ParseQuantity(v)
			c.Resources.Requests = corev1.ResourceList{name: must(t, q, err)}
		}
	}
	if v, ok := args["hostPort"]; ok {
		port, err := strconv.Atoi(v)
		c.Ports = []corev1.ContainerPort{{ContainerPort: int32(must(t, port, err)), HostPort: int32(port), Protocol: corev1.ProtocolTCP}}
	}
	if v, ok := args["restart"]; ok {
		spec.RestartPolicy = corev1.RestartPolicy(v)
	}
	if v, ok := args["on"]; ok {
		spec.NodeName = v
	}
	if v, ok := args["account"]; ok { // as the manifest's defaults have it
		spec.ServiceAccountName, spec.DeprecatedServiceAccount = v, v
	}
	constraintFields(t, spec, args)
	if v, ok := args["disk"]; ok {
		spec.NodeSelector = map[string]string{"disk": v}
	}
}

func number(t *testing.T, args map[string]string, name string, was *int32) *int32 {
	v, ok := args[name]
	if !ok {
		return was
	}
	n, err := strconv.ParseInt(v, 10, 32)
	return ptr.To(int32(must(t, n, err)))
}

func parse(words []string) map[string]string {
	args := map[string]string{}
	for i, w := range words {
		if k, v, ok := strings.Cut(w, "="); ok {
			args[k] = v
		} else if i > 0 || w == "waiting" {
			args[w] = ""
		}
	}
	return args
}
